"""One training, done by Assay, by a loop written by hand and by Lightning's default Trainer.

All start from the same weights, see the same batches in the same order, draw the same random
numbers and change the weights by the same rule. What they leave out of their seconds is alike too:
data on the device, compilation, validation.
"""

import contextlib
import csv
import io
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT / "src"))

import pytorch_lightning as pl  # noqa: E402
import torch  # noqa: E402
from torch import Tensor, nn, optim  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

from assay.jobs.job import Job  # noqa: E402
from assay.runs import artifacts  # noqa: E402
from assay.runs.execution import Execution  # noqa: E402
from assay.runs.ledger import training_seconds  # noqa: E402
from assay.study.training_settings import TrainingSettings  # noqa: E402
from assay.training import fit, rng  # noqa: E402
from assay.training.batches import Batches  # noqa: E402
from assay.training.optimizers import WarmupThenCosine  # noqa: E402
from assay.training.rng import BLOCK_BATCHES  # noqa: E402

SEED = 0


@dataclass(frozen=True)
class Training:
    """A training that rivals do in turn.

    Attributes:
        module: makes a new LightningModule, each time with the same weights.
        optimizer: makes its optimizer, with the greatest learning rate of each group.
        factor: the share of that rate at a step.
        settings: as `assay.training.fit` takes them.
        train: tensors (n, ...) by field, on the CPU.
        validation: likewise.
        accuracy: what a trained module gets right of the validation data, a fraction; None where
            that is of no interest.
        intervals: take only this number of validation intervals; None takes all.
    """

    name: str
    module: Callable[[], pl.LightningModule]
    optimizer: Callable[[nn.Module], optim.Optimizer]
    factor: Callable[[int], float]
    settings: dict[str, Any]
    train: dict[str, Tensor]
    validation: dict[str, Tensor]
    accuracy: Callable[[pl.LightningModule], float] | None = None
    intervals: int | None = None

    @property
    def every(self) -> int:
        return self.settings["validate_every_steps"]

    @property
    def steps(self) -> int:
        """How many are taken."""
        return (self.intervals or self.settings["steps"] // self.every) * self.every

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if self.settings["device"] == "gpu" else "cpu")

    def on_device(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(self.device) for name, tensor in data.items()}

    def rows(self) -> Tensor:
        """The order of the examples that Assay has: (steps, batch size)."""
        batches = Batches(self.train, self.settings["batch_size"], self.every, SEED)
        return torch.stack([batches.rows(number) for number in range(self.steps)])


@dataclass(frozen=True)
class Outcome:
    """What a rival did.

    Attributes:
        seconds: of the steps alone, the device waited for at both ends.
        losses: means by validation interval.
        compile_seconds: before the first step; 0 where nothing was compiled.
        accuracy: of the last weights; None where the task does not ask for it.
    """

    seconds: float
    losses: list[float]
    compile_seconds: float = 0.0
    accuracy: float | None = None


def synchronize(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds_of(device: torch.device, work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of some work, the device waited for at both ends, and what it returns."""
    synchronize(device)
    begun = time.perf_counter()
    found = work()
    synchronize(device)
    return time.perf_counter() - begun, found


def ours(task: Training) -> Outcome:
    """Assay's own way to fit."""
    with tempfile.TemporaryDirectory() as folder:
        execution = Execution(progress_seconds=0, intervals=task.intervals)
        job = Job.open("finetune", task.settings, {}, SEED, Path(folder, "run"), execution)
        settings = TrainingSettings.from_dict(task.settings)
        fit.fit(job, settings, task.module(), task.train, task.validation)
        with Path(folder, "run", artifacts.HISTORY).open() as file:
            rows = list(csv.DictReader(file))
    spent, accuracy = job.ledger.seconds, rows[-1].get("validation_accuracy")
    return Outcome(
        seconds=training_seconds(spent, "steps"),
        losses=[float(row["training_loss"]) for row in rows],
        compile_seconds=spent.get("compile", 0.0),
        accuracy=accuracy and float(accuracy),
    )


def by_hand(task: Training, batches: Iterable[dict[str, Tensor]] | None = None) -> Outcome:
    """The loop that one writes by hand: data on the device, the schedule as a formula.

    Args:
        batches: from elsewhere; None slices them from tensors on the device.
    """
    module = task.module().to(task.device)
    optimizer = task.optimizer(module)
    data, order = task.on_device(task.train), task.rows().to(task.device)
    context = _context(task)
    step, compiling = _compiled(task, module, context)
    if batches is None:
        batches = ({name: tensor[rows] for name, tensor in data.items()} for rows in order)
    rates = [group["lr"] for group in optimizer.param_groups]
    losses = []

    def loop() -> None:
        for number, batch in enumerate(_seeded(batches)):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * task.factor(number)
            with context():
                loss = step(batch, 0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach().clone())

    seconds, _ = seconds_of(task.device, loop)
    return _outcome(task, module, seconds, losses, compiling)


def by_hand_with_any_kernel(task: Training) -> Outcome:
    """The same, free to take kernels that do not give the same bits each time."""
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = True
    try:
        return by_hand(task)
    finally:
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False


def loader(task: Training) -> DataLoader:
    """Lists of tensors, collated example by example on the CPU."""
    dataset, order = TensorDataset(*task.train.values()), task.rows().flatten().tolist()
    return DataLoader(dataset, batch_size=task.settings["batch_size"], sampler=order)


def cosine(step: int, steps: int, warmup: int) -> float:
    """The share of the greatest learning rate, as a formula: up linearly, down as a cosine."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


class Schedule(WarmupThenCosine):
    """A share of the greatest learning rate at each step, given as a function."""

    def __init__(self, optimizer: optim.Optimizer, factor: Callable[[int], float]) -> None:
        self.factor = factor
        super().__init__(optimizer, steps=0, warmup_steps=0)


class Plain(pl.LightningModule):
    """The same for Lightning's Trainer alone, as its introduction writes it."""

    def __init__(self, task: Training) -> None:
        super().__init__()
        self.task, self.losses, self.inner = task, [], task.module()
        self.step, self.compiling = self.inner.training_step, 0.0

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        loss = self.step(dict(zip(self.task.train, batch, strict=True)), 0)
        self.log("train_loss", loss)
        self.losses.append(loss.detach().clone())
        return loss

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = self.task.optimizer(self.inner)
        schedule = Schedule(optimizer, self.task.factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        context = self.trainer.precision_plugin.train_step_context
        self.step, self.compiling = _compiled(self.task, self.inner, context)
        synchronize(self.device)
        self.start = time.perf_counter()

    def on_train_batch_start(self, batch: list[Tensor], index: int) -> None:
        _reseed(index)

    def on_train_end(self) -> None:
        synchronize(self.device)
        self.seconds = time.perf_counter() - self.start


def default_trainer(task: Training) -> Outcome:
    """Lightning's Trainer with nothing set but device and precision, and a DataLoader."""
    plain = Plain(task)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        trainer = pl.Trainer(
            max_epochs=1,
            default_root_dir=folder,
            accelerator=task.settings["device"],
            devices=1,
            precision=task.settings["precision"],
        )
        trainer.fit(plain, loader(task))
    module = plain.inner.to(task.device)
    return _outcome(task, module, plain.seconds, plain.losses, plain.compiling)


def _context(task: Training) -> Callable[[], Any]:
    if task.settings["precision"] == "32-true":
        return contextlib.nullcontext
    return partial(torch.autocast, task.device.type, torch.bfloat16)


def _compiled(
    task: Training, module: pl.LightningModule, context: Callable[[], Any]
) -> tuple[Callable[..., Tensor], float]:
    """A module's training step, and the seconds that its compilation took.

    The passes that compile it leave weights, buffers and generators as they were.
    """
    mode = task.settings.get("compile", "none")
    if mode == "none":
        return module.training_step, 0.0
    step = torch.compile(module.training_step, mode=mode, dynamic=False)
    rows = task.rows()[0]
    batch = task.on_device({name: tensor[rows] for name, tensor in task.train.items()})
    weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    drawn = rng.state()

    def passes() -> None:
        for _ in range(3 if mode == "reduce-overhead" else 1):
            with context():
                loss = step(batch, 0)
            loss.backward()
            module.zero_grad()

    seconds, _ = seconds_of(task.device, passes)
    module.load_state_dict(weights)
    rng.restore(drawn)
    return step, seconds


def _seeded(batches: Iterable[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    for number, batch in enumerate(batches):
        _reseed(number)
        yield batch


def _reseed(number: int) -> None:
    """Seed the generators before a batch as Assay does."""
    block, index = divmod(number, BLOCK_BATCHES)
    if index == 0:
        rng.reseed(rng.mix(SEED, "block", block))


def _outcome(
    task: Training, module: nn.Module, seconds: float, losses: list[Tensor], compiling: float
) -> Outcome:
    by_interval = torch.stack(losses).view(-1, task.every).mean(1).tolist()
    accuracy = task.accuracy and task.accuracy(module)
    return Outcome(seconds, by_interval, compiling, accuracy)
