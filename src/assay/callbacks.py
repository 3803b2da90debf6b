"""What happens around each step and each validation of a training."""

import math
import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from assay import randomness
from assay.clock import Ledger
from assay.job import JobError


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
