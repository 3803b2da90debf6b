"""Saves the state of a training between two batches, and resumes it to the same bytes.

A checkpoint holds the number of the next batch, which decides its examples, and the states of the
random generators; see `assay.training.batches` and `assay.training.rng`.
"""

import time
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from assay.devices import gpus
from assay.jobs.job import Job
from assay.runs import environment
from assay.runs.errors import ExitCode, JobError
from assay.study.training_settings import TrainingSettings
from assay.training import checkpoints, lightning_internals
from assay.training.batches import Batches
from assay.training.distributed import World
from assay.training.history import History
from assay.training.loop import StepLoop

LIBRARIES = ("timm", "transformers")  # networks of these are part of a result
MAX_COST = 0.02  # of the time between two checkpoints, for writing one
FIRST_COST_SECONDS = 0.01  # as long as none was written


class Resume(Callback):
    """Writes checkpoints, and restores a training from the last one.

    Attributes:
        loop: takes the steps; set before the training starts.
    """

    loop: StepLoop

    def __init__(
        self, job: Job, settings: TrainingSettings, world: World, batches: Batches, history: History
    ) -> None:
        self.job, self.world, self.batches, self.history = job, world, batches, history
        self.folder = job.resume_folder
        self.accumulate = settings.gradient_accumulation_steps
        self.environment = environment_fingerprint(settings)
        self.cost_seconds = FIRST_COST_SECONDS
        self.saved = time.perf_counter()
        self.resumed = False
        self.tested = False

    def load(self, state: dict[str, Any]) -> None:
        """Restore from a checkpoint what Lightning does not.

        Raises:
            JobError: another kind of machine, or other packages, wrote it.
        """
        if state["environment"] != self.environment:
            raise JobError(
                f"{self.folder}: this run was started with {_words(state['environment'])}; this "
                f"is {_words(self.environment)}, so results would no longer be bit-identical: "
                "resume it there, or delete the folder to restart it here",
                ExitCode.CHANGED,
            )
        self.job.ledger.resume(state["seconds"])
        self.job.meter.resume(state["measured"])
        self.history.restore(state["history"])
        self.batches.next = state["batch"]
        self.resumed = not state["finished"]
        print(f"resumed at batch {state['batch']}", flush=True)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.job.supervision.handle_signals()
        self.job.supervision.deferred = True
        self.saved = time.perf_counter()
        if not self.resumed:
            return
        if self.loop.by_interval or self.batches.next % self.batches.per_interval == 0:
            lightning_internals.end_restart(trainer)
        else:  # Lightning omits this hook where it restarts within an epoch
            for callback in trainer.callbacks:
                callback.on_train_epoch_start(trainer, module)
            module.on_train_epoch_start()

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        lightning_internals.end_restart(trainer)

    def before_batch(self, trainer: pl.Trainer, module: pl.LightningModule, number: int) -> None:
        stopping = self.job.supervision.reason is not None
        due = stopping or self._is_due(number)
        if self.world.broadcast([due and self._can_save(trainer, module, number)])[0]:
            self._save(trainer, number)
            self.job.supervision.check()

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.job.supervision.deferred = False
        with self.job.ledger.spend("write"):
            state = self._state(finished=True)
            if self.world.rank == 0:
                checkpoints.write(self.folder, self.batches.next, state)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what Lightning does not save, and set its progress to between two batches."""
        checkpoint |= self._state(finished=False)
        for key in ("hyper_parameters", "hparams_name", "hparams_type"):
            checkpoint.pop(key, None)  # not needed, and perhaps of any type
        batches = self.batches.next - 1
        epoch, index = divmod(batches, self.batches.per_interval)
        if self.loop.by_interval:  # the interval, one batch to Lightning, has not begun
            batches, index = epoch, 0
        lightning_internals.set_progress_between_batches(checkpoint, epoch, batches, index)

    def _state(self, finished: bool) -> dict[str, Any]:
        self.job.supervision.write_attempts()
        total = self.job.ledger.total()
        return {
            "finished": finished,
            "batch": self.batches.next - (not finished),
            "history": self.history.state(),
            "seconds": {phase: value for phase, value in total.items() if phase != "wall"},
            "measured": self.job.meter.total(),
            "environment": self.environment,
        }

    def _can_save(self, trainer: pl.Trainer, module: pl.LightningModule, number: int) -> bool:
        """Return whether a checkpoint would hold all: no summed gradients, no logged values."""
        index = number % self.batches.per_interval
        if index == 0:
            return True
        if index % self.accumulate or lightning_internals.has_logged_values(trainer):
            return False
        return not any(map(_is_metric, module.modules()))

    def _is_due(self, number: int) -> bool:
        elapsed = time.perf_counter() - self.saved
        interval_seconds = self.job.execution.checkpoint_seconds
        if interval_seconds and elapsed < self.cost_seconds / MAX_COST:
            return False
        return number % self.batches.per_interval == 0 or elapsed >= interval_seconds

    def _save(self, trainer: pl.Trainer, number: int) -> None:
        if number == 0:
            return  # there is nothing to save
        self.history.check_finite(trainer)
        start = time.perf_counter()
        with self.job.ledger.spend("checkpoint"):
            trainer.save_checkpoint(self.folder / str(number))
            if self.world.rank == 0 and not self.tested:
                self._test()
        self.saved = time.perf_counter()
        self.cost_seconds = self.saved - start

    def _test(self) -> None:
        """Read the first checkpoint, because a module or callback may save what cannot be read."""
        self.tested = True
        if checkpoints.newest(self.folder) is None:
            raise JobError(
                f"{self.folder}: a checkpoint of this run cannot be read: its module or a callback "
                "saves objects other than tensors, numbers, texts, and lists and dicts of these; "
                "change its on_save_checkpoint or state_dict",
                ExitCode.CODE,
            )


def environment_fingerprint(settings: TrainingSettings) -> dict[str, Any]:
    """Return what decides the bits of a result besides settings, code, data and seed."""
    device = gpus.describe(settings.device, settings.threads, settings.devices)
    return {
        "torch": str(torch.__version__),
        "pytorch-lightning": pl.__version__,
        "numpy": np.__version__,
        **{
            name: version
            for name, version in environment.packages().items()
            if name in LIBRARIES and settings.model["name"].startswith(f"{name}:")
        },
        "instructions": torch.backends.cpu.get_cpu_capability(),
        **{f"device {key}": value for key, value in device.items()},
    }


def _words(fingerprint: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in fingerprint.items())


def _is_metric(module: torch.nn.Module) -> bool:
    return any(kind.__module__.startswith("torchmetrics") for kind in type(module).__mro__)
