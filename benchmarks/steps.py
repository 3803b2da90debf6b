"""Optimizer steps per second: Assay against a hand-written loop and Lightning's default Trainer.

Usage: python benchmarks/steps.py [rounds]; writes benchmarks/results/steps.csv.

All rivals start from the same weights, see the same batches in the same order and change the
weights by the same rule; their losses are compared. They take turns, and a ratio is the median over
rounds of the rate against that of the hand-written loop in the same round.
"""

import contextlib
import csv
import io
import math
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT / "src"))

import pytorch_lightning as pl  # noqa: E402
import torch  # noqa: E402
import written  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from assay import training  # noqa: E402
from assay.batches import Batches  # noqa: E402
from assay.execution import Execution  # noqa: E402
from assay.job import Job  # noqa: E402
from assay.optimizers import adamw  # noqa: E402

THREADS = 1


class Classifier(pl.LightningModule):
    """A plain LightningModule: what a user brings."""

    FIELDS = ("image", "label")
    MONITOR, MODE = "validation_loss", "min"

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        logits = self.backbone(batch["image"])
        return functional.cross_entropy(logits.flatten(0, -2), batch["label"].flatten())

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        self.log("validation_loss", self.training_step(batch, index), batch_size=1)


class Attention(nn.Module):
    """A block of a GPT."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        parts = self.mixed(self.first(x)).view(batch, length, 3, self.heads, -1).unbind(2)
        query, key, value = (part.transpose(1, 2) for part in parts)
        y = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, width))
        return x + self.narrow(functional.gelu(self.wide(self.second(x))))


class Gpt(nn.Module):
    """Four layers, width 128, four heads, context 64, bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(256, 128), nn.Embedding(64, 128)
        self.blocks = nn.Sequential(*(Attention(128, 4) for _ in range(4)))
        self.norm, self.head = nn.LayerNorm(128), nn.Linear(128, 256)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.places.weight[: tokens.shape[1]]
        return self.head(self.norm(self.blocks(x)))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def cnn(pixels: int) -> nn.Module:
    layers = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()]
    features = 32 * (pixels // 2) ** 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, 10))


def digits() -> dict[str, Tensor]:
    images, labels = load_digits(return_X_y=True)
    image = torch.tensor(images / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    return {"image": image, "label": torch.tensor(labels)}


def large_digits() -> dict[str, Tensor]:
    found = digits()
    return found | {"image": functional.interpolate(found["image"], size=28)}


def text() -> dict[str, Tensor]:
    from pydoc_data import topics

    joined = "\n".join(topics.topics[name] for name in sorted(topics.topics)).encode()
    tokens = torch.frombuffer(bytearray(joined[: 65 * 2000]), dtype=torch.uint8).long().view(-1, 65)
    return {"image": tokens[:, :-1].contiguous(), "label": tokens[:, 1:].contiguous()}


@dataclass(frozen=True)
class Task:
    """A network, its data, and how many steps are timed."""

    name: str
    network: Callable[[], nn.Module]
    data: Callable[[], dict[str, Tensor]]
    batch_size: int
    steps: int
    every: int


TASKS = (
    Task("MLP on digits", mlp, digits, 64, 1200, 400),
    Task("CNN on digits", lambda: cnn(8), digits, 64, 300, 100),
    Task("CNN on 28x28 images", lambda: cnn(28), large_digits, 64, 40, 20),
    Task("GPT, 4 layers, width 128", Gpt, text, 12, 40, 20),
)


def settings(task: Task) -> dict[str, Any]:
    return {
        "steps": task.steps, "batch_size": task.batch_size, "validate_every_steps": task.every,
        "learning_rate": 0.001, "weight_decay": 0.01, "warmup_steps": 1, "frozen": [],
        "device": "cpu", "precision": "32-true", "threads": THREADS,
    }  # fmt: skip


def module(task: Task) -> Classifier:
    torch.manual_seed(0)
    return Classifier(task.network())


def ours(task: Task, data: dict[str, Tensor]) -> tuple[float, float]:
    """Assay's own way to fit. Returns seconds and the mean loss of the last round."""
    with tempfile.TemporaryDirectory() as folder:
        job = Job("finetune", settings(task), {}, 0, Path(folder, "run"))
        few = {name: tensor[:64] for name, tensor in data.items()}
        training.fit(job, module(task), data, few, Execution(progress_seconds=0))
        with Path(folder, "run", training.HISTORY).open() as file:
            last = list(csv.DictReader(file))[-1]
        return job.ledger.seconds["train"], float(last["training_loss"])


def by_hand(task: Task, data: dict[str, Tensor], batches: Iterator[Any], fused: bool) -> tuple:
    """The loop that one writes by hand, with the schedule as a formula."""
    model = module(task)
    rule = settings(task)
    optimizer = torch.optim.AdamW(model.parameters(), 0.001, weight_decay=0.01, fused=fused)
    losses = []
    start = time.perf_counter()
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = 0.001 * rate(step, rule["steps"], rule["warmup_steps"])
        loss = model.training_step(batch, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    seconds = time.perf_counter() - start
    return seconds, float(torch.stack(losses[-task.every :]).mean())


def rate(step: int, steps: int, warmup: int) -> float:
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def rows(task: Task, data: dict[str, Tensor]) -> Tensor:
    """The order of the examples that Assay has: (steps, batch_size)."""
    batches = Batches(data, task.batch_size, task.every, 0)
    return torch.stack([batches.rows(number) for number in range(task.steps)])


def in_memory(task: Task, data: dict[str, Tensor]) -> tuple:
    order = rows(task, data)
    batches = ({name: tensor[chosen] for name, tensor in data.items()} for chosen in order)
    return by_hand(task, data, batches, fused=True)


def in_memory_not_fused(task: Task, data: dict[str, Tensor]) -> tuple:
    order = rows(task, data)
    batches = ({name: tensor[chosen] for name, tensor in data.items()} for chosen in order)
    return by_hand(task, data, batches, fused=False)


def loader(task: Task, data: dict[str, Tensor]) -> DataLoader:
    order = rows(task, data).flatten().tolist()
    return DataLoader(TensorDataset(*data.values()), batch_size=task.batch_size, sampler=order)


def with_loader(task: Task, data: dict[str, Tensor]) -> tuple:
    batches = (dict(zip(data, batch, strict=True)) for batch in loader(task, data))
    return by_hand(task, data, batches, fused=True)


class Plain(Classifier):
    """The same for Lightning's Trainer alone, as its introduction writes it."""

    def __init__(self, task: Task) -> None:
        super().__init__(nn.Identity())
        self.task, self.losses = task, []

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        loss = super().training_step(dict(zip(("image", "label"), batch, strict=True)), index)
        self.log("train_loss", loss)
        self.losses.append(loss.detach())
        return loss

    def configure_optimizers(self) -> dict[str, Any]:
        return adamw(self, settings(self.task))

    def on_train_start(self) -> None:
        self.start = time.perf_counter()

    def on_train_end(self) -> None:
        self.seconds = time.perf_counter() - self.start


def default_trainer(task: Task, data: dict[str, Tensor]) -> tuple:
    plain = Plain(task)
    plain.backbone = module(task).backbone
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        trainer = pl.Trainer(max_epochs=1, default_root_dir=folder, accelerator="cpu")
        trainer.fit(plain, loader(task, data))
    return plain.seconds, float(torch.stack(plain.losses[-task.every :]).mean())


VARIANTS: dict[str, Callable[[Task, dict[str, Tensor]], tuple]] = {
    "by hand, in memory, fused AdamW": in_memory,
    "by hand, in memory, default AdamW": in_memory_not_fused,
    "by hand, DataLoader, fused AdamW": with_loader,
    "Lightning, default Trainer": default_trainer,
    "Assay": ours,
}


def main(rounds: int) -> None:
    """Take turns, check the losses, and print medians."""
    os.environ.pop("ASSAY_PARENT", None)
    warnings.filterwarnings("ignore")
    training.set_up({"threads": THREADS})
    measured = []
    print(f"torch {torch.__version__}, pytorch-lightning {pl.__version__}, {THREADS} thread")
    print(f"{'task':26} {'variant':36} {'steps/s':>9} {'ratio':>7}  {'least to greatest':16}")
    for task in TASKS:
        data = task.data()
        rates: dict[str, list[float]] = {name: [] for name in VARIANTS}
        for _ in range(rounds):
            losses = {}
            for name, variant in VARIANTS.items():
                seconds, losses[name] = variant(task, data)
                rates[name].append(task.steps / seconds)
            low, high = min(losses.values()), max(losses.values())
            assert high - low <= 1e-3 * abs(high) + 1e-6, f"{task.name}: other losses: {losses}"
        base = rates["by hand, in memory, fused AdamW"]
        for name, found in rates.items():
            ratios = [one / other for one, other in zip(found, base, strict=True)]
            middle, ratio = statistics.median(found), statistics.median(ratios)
            measured.append((task.name, name, middle, ratio, min(ratios), max(ratios)))
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            print(f"{task.name:26} {name:36} {middle:9.1f} {ratio:7.2f}  {spread}", flush=True)
    written.table(
        "steps", ["task", "variant", "rate", "ratio", "ratio_least", "ratio_greatest"], measured
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
