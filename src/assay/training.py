"""The one place that builds a Trainer and fits."""

import csv
import logging
import math
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.environments import LightningEnvironment
from safetensors.torch import load_file, save_file
from torch import Tensor

from assay import optimizers, plugins, randomness
from assay.clock import Ledger
from assay.job import Job, JobError

WEIGHTS, HISTORY = "weights.safetensors", "history.csv"
VALIDATION_BATCH_EXAMPLES = 1024


class Batches:
    """Batches sliced from tensors in memory; batch b is a function of the seed and b alone.

    The examples form an endless stream, one shuffled epoch after another, that is cut into full
    batches. One iteration is one round: the batches between two validations.
    """

    def __init__(self, data: dict[str, Tensor], size: int, per_round: int, seed: int) -> None:
        self.data, self.size, self.per_round, self.seed = data, size, per_round, seed
        self.count = len(next(iter(data.values())))
        self.rounds = 0

    def __len__(self) -> int:
        return self.per_round

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        first = self.rounds * self.per_round
        self.rounds += 1
        for number in range(first, first + self.per_round):
            rows = self.rows(number)
            yield {name: tensor[rows] for name, tensor in self.data.items()}

    def rows(self, number: int) -> Tensor:
        """The examples of batch `number`: indices (size,)."""
        start, end = number * self.size, (number + 1) * self.size
        epochs = range(start // self.count, (end - 1) // self.count + 1)
        orders = [randomness.permutation(self.seed, epoch, self.count) for epoch in epochs]
        offset = epochs[0] * self.count
        return torch.cat(orders)[start - offset : end - offset]


class InOrder:
    """All examples once, in order, in batches of nearly one size: none is left with a few."""

    def __init__(self, data: dict[str, Tensor], largest: int) -> None:
        self.data = data
        self.count = len(next(iter(data.values())))
        self.size = math.ceil(self.count / math.ceil(self.count / largest))

    def __len__(self) -> int:
        return math.ceil(self.count / self.size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for start in range(0, self.count, self.size):
            yield {name: tensor[start : start + self.size] for name, tensor in self.data.items()}


class Randomness(Callback):
    """Seeds every batch, so that nothing else can shift what is drawn in it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        randomness.reseed(randomness.mix(self.seed, "step", trainer.global_step))

    def on_validation_start(self, *_: Any) -> None:
        randomness.reseed(randomness.mix(self.seed, "validation"))


class Frozen(Callback):
    """Keeps frozen parts in evaluation mode: no dropout, no moving averages."""

    def __init__(self, parts: list[str]) -> None:
        self.parts = parts

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        for part in self.parts:
            module.get_submodule(part).eval()


class History(Callback):
    """Keeps a row per validation and the weights of the best one, and tells how far it is."""

    def __init__(self, ledger: Ledger, monitor: str, mode: str, batch_size: int) -> None:
        self.ledger, self.monitor, self.batch_size = ledger, monitor, batch_size
        self.sign = {"max": 1, "min": -1}[mode]
        self.rows: list[dict[str, float]] = []
        self.best: dict[str, float] | None = None
        self.best_weights: dict[str, Tensor] = {}
        self.losses: list[Tensor] = []
        self.printed = self.started = time.perf_counter()

    def on_train_epoch_start(self, *_: Any) -> None:
        self.ledger.enter("train")

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, *_: Any) -> None:
        self.losses.append(outputs["loss"])
        if time.perf_counter() - self.printed > 10:
            self._tell(trainer, {"loss": float(outputs["loss"])})

    def on_validation_start(self, *_: Any) -> None:
        self.ledger.enter("validate")

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        loss = float(torch.stack(self.losses).mean())
        self.losses.clear()
        measured = {name: float(value) for name, value in trainer.callback_metrics.items()}
        step = trainer.global_step
        if not all(map(math.isfinite, (loss, *measured.values()))):
            raise JobError(
                f"the loss is not finite at step {step} (training {loss}, {measured}); lower "
                "learning_rate or raise warmup_steps"
            )
        self.rows.append(
            {
                "step": step,
                "epoch": trainer.current_epoch + 1,
                "samples": step * self.batch_size,
                "seconds": round(self.ledger.seconds["train"], 6),
                "training_loss": loss,
                **measured,
            }
        )
        if self.best is None or self.sign * (measured[self.monitor] - self.best[self.monitor]) > 0:
            self.best = self.rows[-1]
            self.best_weights = {
                name: tensor.detach().to("cpu", copy=True).contiguous()
                for name, tensor in module.state_dict().items()
            }
        finished = step >= trainer.max_epochs * len(trainer.train_dataloader)
        if finished or len(self.rows) == 1 or time.perf_counter() - self.printed > 2:
            self._tell(trainer, {"loss": loss, **measured})

    def on_train_end(self, *_: Any) -> None:
        self.ledger.enter("rest")

    def _tell(self, trainer: pl.Trainer, measured: dict[str, float]) -> None:
        self.printed = time.perf_counter()
        step, steps = trainer.global_step, trainer.max_epochs * len(trainer.train_dataloader)
        elapsed = self.printed - self.started
        values = "  ".join(f"{name} {value:.4f}" for name, value in measured.items())
        rate = step * self.batch_size / elapsed
        left = elapsed / max(1, step) * (steps - step)
        print(
            f"step {step}/{steps}  {values}  {rate:,.0f} examples/s  {left:.0f} s left", flush=True
        )


def build(settings: dict[str, Any], facts: dict[str, Any], seed: int) -> pl.LightningModule:
    """Build an objective around a new backbone, both initialised from the seed."""
    model, objective = dict(settings["model"]), dict(settings["objective"])
    randomness.reseed(randomness.mix(seed, "initialisation"))
    backbone = plugins.load("model", model.pop("name")).build(facts, **model)
    name = objective.pop("name")
    kind = getattr(plugins.load("objective", name), plugins.class_name(name))
    return kind(backbone, facts, **objective)


def set_up(settings: dict[str, Any]) -> None:
    """Make this process compute the same bits each time, with the threads that the study says."""
    torch.set_num_threads(settings["threads"])
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning")


def fit(
    job: Job, objective: pl.LightningModule, train: dict[str, Tensor], validation: dict[str, Tensor]
) -> None:
    """Train an objective, and write the weights of its best validation and its history.

    Args:
        job: its settings say `steps`, `batch_size`, `validate_every_steps`, `learning_rate`,
            `weight_decay`, `warmup_steps`, `frozen`, `device` and `precision`.
        objective: trained in place. It may bring its own `configure_optimizers`.
        train: tensors (n, ...) by field.
        validation: likewise; the only data that decides which weights are kept.

    Raises:
        JobError: the loss is no longer finite.
    """
    settings, seed = job.settings, job.seed
    frozen = settings.get("frozen", [])
    for name, parameter in objective.named_parameters():
        parameter.requires_grad_(name.split(".")[0] not in frozen)
    if not pl.utilities.model_helpers.is_overridden("configure_optimizers", objective):
        objective.configure_optimizers = lambda: optimizers.adamw(objective, settings)
    history = History(job.ledger, objective.MONITOR, objective.MODE, settings["batch_size"])
    per_round = settings["validate_every_steps"]
    trainer = pl.Trainer(
        accelerator=settings["device"],
        devices=1,
        precision=settings["precision"],
        max_epochs=settings["steps"] // per_round,
        callbacks=[Randomness(seed), Frozen(frozen), history],
        plugins=[LightningEnvironment()],
        deterministic=True,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    device = trainer.strategy.root_device
    if device.type == "cuda":
        job.ledger.synchronize = torch.cuda.synchronize
    trainer.fit(
        objective,
        Batches(_to(train, device), settings["batch_size"], per_round, seed),
        InOrder(_to(validation, device), VALIDATION_BATCH_EXAMPLES),
    )
    with job.ledger.spend("write"):
        save_file(history.best_weights, job.output / WEIGHTS)
        _write_history(job.output / HISTORY, history.rows)
    job.metrics = _metrics(objective, history)
    job.extra["monitor"] = {"metric": objective.MONITOR, "mode": objective.MODE}


def _metrics(objective: pl.LightningModule, history: History) -> dict[str, float]:
    """The row of the best validation, and the network's size."""
    untimed = {name: value for name, value in history.best.items() if name != "seconds"}
    sizes = {
        "parameters": sum(p.numel() for p in objective.parameters()),
        "trained_parameters": sum(p.numel() for p in objective.parameters() if p.requires_grad),
    }
    return {**untimed, **sizes}


def load_weights(objective: pl.LightningModule, folder: Path, prefix: str = "") -> None:
    """Load a run's weights into an objective.

    Args:
        prefix: only the entries that start so, such as `backbone.`; all of those must fit.

    Raises:
        JobError: the weights are not those of such a network.
    """
    found = load_file(folder / WEIGHTS)
    wanted = [name for name in objective.state_dict() if name.startswith(prefix)]
    chosen = {name: tensor for name, tensor in found.items() if name.startswith(prefix)}
    if set(chosen) != set(wanted):
        raise JobError(f"{folder / WEIGHTS} holds another network: {sorted(chosen)} for {wanted}")
    try:
        objective.load_state_dict(chosen, strict=False)
    except RuntimeError as error:
        raise JobError(f"{folder / WEIGHTS} holds another network: {error}") from error


def _to(data: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in data.items()}


def _write_history(path: Path, rows: list[dict[str, float]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
