"""What a training records at each validation: history, best weights, early stopping, progress."""

import csv
import hashlib
import io
import math
import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from assay.runs.errors import ExitCode, JobError
from assay.runs.ledger import RULES, Ledger, training_seconds
from assay.study.training_settings import TrainingSettings
from assay.training import fsdp
from assay.training.distributed import World

REMEDY = "lower learning_rate or raise warmup_steps; the last checkpoint is kept"


class History(Callback):
    """Keeps a row per validation and the weights of the best one.

    Attributes:
        rows: a mapping per validation: step, samples, seconds, losses, metrics, and a hash of the
            weights that were validated.
        best: the row of the best validation; None before the first.
        best_weights: the weights of that validation, on the CPU.
    """

    def __init__(
        self, settings: TrainingSettings, ledger: Ledger, monitor: str, mode: str, world: World
    ) -> None:
        """Start with no row.

        Args:
            ledger: the clock that a validation and the training around it are charged to.
            monitor: the logged metric whose best value decides which weights are kept.
            mode: `max` or `min`: which value of it is the best.
        """
        self.ledger, self.monitor, self.world = ledger, monitor, world
        self.sign = {"max": 1, "min": -1}[mode]
        self.accumulate = settings.gradient_accumulation_steps
        self.samples_per_step = settings.batch_size * self.accumulate
        self.rows: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.best_weights: dict[str, Tensor] = {}
        self.losses: list[Tensor] = []

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "rows": self.rows,
            "best": self.best and self.rows.index(self.best),
            "best_weights": self.best_weights,
            "losses": self._gathered_losses() if self.losses else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Load what `state` returned."""
        self.rows = state["rows"]
        self.best = None if state["best"] is None else self.rows[state["best"]]
        self.best_weights = state["best_weights"]
        self.losses = [] if state["losses"] is None else list(state["losses"][self.world.rank])

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.losses = [loss.to(module.device) for loss in self.losses]

    def on_train_epoch_start(self, *_: Any) -> None:
        self.ledger.enter("train")

    def after_batch(self, trainer: pl.Trainer, loss: Tensor) -> None:
        self.losses.append(loss)

    def on_validation_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.ledger.enter("validate")
        trainer.callback_metrics.clear()  # a resumed training has no values logged before the crash

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        metrics = self._logged(trainer)
        self.check_finite(trainer, metrics)
        loss = float(self._gathered_losses().mean())
        self.losses.clear()
        weights = fsdp.gather_full({name: t.detach() for name, t in module.state_dict().items()})
        step, spent = trainer.global_step, self.ledger.total()
        self.rows.append(
            {
                "step": step,
                "validation": len(self.rows) + 1,
                "samples": step * self.samples_per_step,
                **{f"{rule}_seconds": round(training_seconds(spent, rule), 6) for rule in RULES},
                "training_loss": loss,
                **metrics,
                "weights": hash_weights(weights),
            }
        )
        if self.best is None or self.sign * (metrics[self.monitor] - self.best[self.monitor]) > 0:
            self.best = self.rows[-1]
            self.best_weights = {
                name: tensor.to("cpu", copy=True).contiguous() for name, tensor in weights.items()
            }

    def on_train_end(self, *_: Any) -> None:
        self.ledger.enter("other")

    def check_finite(self, trainer: pl.Trainer, metrics: dict[str, float] | None = None) -> None:
        """Check losses, metrics and weights; call it where the device is waited for anyway.

        Raises:
            JobError: a loss since the last validation, a metric or a weight is not finite.
        """
        losses = self._gathered_losses().mean(dim=0) if self.losses else torch.empty(0)
        finite = losses.isfinite().tolist()
        if not all(finite):
            index = finite.index(False)
            batches = trainer.global_step * self.accumulate - len(finite) + index
            step = batches // self.accumulate + 1
            raise _diverged(trainer, "the training loss", step, f" ({float(losses[index])})")
        wrong = [name for name, value in (metrics or {}).items() if not math.isfinite(value)]
        weights = trainer.lightning_module.named_parameters()
        wrong += [name for name, weight in weights if not _is_finite(weight)][:1]
        if wrong:
            raise _diverged(trainer, wrong[0], trainer.global_step)

    def best_metrics(self) -> dict[str, float]:
        """Return the row of the best validation without times and the hash of its weights."""
        return {
            name: value
            for name, value in self.best.items()
            if name != "weights" and not name.endswith("_seconds")
        }

    def as_csv(self) -> str:
        """Return the rows as the text of `history.csv`."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    def _logged(self, trainer: pl.Trainer) -> dict[str, float]:
        """Return the metrics that a validation logged; those of rank 0, as ranks may differ."""
        logged = trainer.callback_metrics
        values = self.world.broadcast([float(value) for value in logged.values()])
        metrics = dict(zip(logged, values, strict=True))
        if self.monitor not in metrics:
            names = ", ".join(metrics) or "nothing"
            raise JobError(
                f"validation does not log {self.monitor}, which decides the weights to keep, "
                f"but {names}: log it, or monitor another metric",
                ExitCode.CODE,
            )
        return metrics

    def _gathered_losses(self) -> Tensor:
        """Return the losses since the last validation: (world_size, batches)."""
        return self.world.gather(torch.stack(self.losses).cpu())


class EarlyStopping(Callback):
    """Stops a training after `patience` validations without a better one."""

    def __init__(self, patience: int, history: History) -> None:
        self.patience, self.history = patience, history

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        rows = self.history.rows
        if len(rows) - 1 - rows.index(self.history.best) >= self.patience:
            trainer.should_stop = True


class Progress(Callback):
    """Prints loss, metrics, speed and remaining time, at most every `interval_seconds`."""

    def __init__(self, interval_seconds: float, history: History, steps: int) -> None:
        self.interval_seconds, self.history, self.steps = interval_seconds, history, steps
        self.printed = self.started = time.perf_counter()
        self.first_step = 0

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.first_step = trainer.global_step

    def after_batch(self, trainer: pl.Trainer, loss: Tensor) -> None:
        if time.perf_counter() - self.printed > self.interval_seconds:
            self._print(trainer, {"loss": loss})

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        finished = trainer.global_step >= self.steps or trainer.should_stop
        waited = time.perf_counter() - self.printed > min(2, self.interval_seconds)
        rows = self.history.rows
        if finished or len(rows) == 1 or waited:
            self._print(trainer, {"loss": rows[-1]["training_loss"], **trainer.callback_metrics})

    def _print(self, trainer: pl.Trainer, values: dict[str, float | Tensor]) -> None:
        self.printed = time.perf_counter()
        step, elapsed = trainer.global_step, self.printed - self.started
        words = "  ".join(f"{name} {float(value):.4f}" for name, value in values.items())
        done = max(1, step - self.first_step)
        rate = done * self.history.samples_per_step / elapsed
        left_seconds = elapsed / done * (self.steps - step)
        print(
            f"step {step}/{self.steps}  {words}  {rate:,.0f} examples/s  {left_seconds:.0f} s left",
            flush=True,
        )


def hash_weights(weights: dict[str, Tensor]) -> str:
    """Return 16 characters of the SHA-256 of a network's weights, names and shapes."""
    sha256 = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        sha256.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha256.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return sha256.hexdigest()[:16]


def _diverged(trainer: pl.Trainer, what: str, step: int, value: str = "") -> JobError:
    rates = [group["lr"] for one in trainer.strategy.optimizers for group in one.param_groups]
    now = f"the learning rate is now {float(max(rates)):.4g}"
    return JobError(f"{what} is not finite at step {step}{value}; {now}: {REMEDY}",
                    ExitCode.DIVERGED)  # fmt: skip


def _is_finite(weight: Tensor) -> bool:
    """Return whether all of a weight is finite, on all devices."""
    finite = weight.isfinite().all()
    return bool(finite.full_tensor() if fsdp.is_sharded(finite) else finite)
