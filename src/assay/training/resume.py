"""Saves the state of a training between two batches, and goes on from it bit by bit alike.

A checkpoint is taken where nothing is under way: before a batch, whose number says which examples
it holds, and with the state of the generators; see `assay.training.batches` and `assay.training.callbacks`.
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
from assay.training import checkpoints
from assay.training.batches import Batches
from assay.training.callbacks import History
from assay.training.distributed import Rank
from assay.training.loop import Steps

LIBRARIES = ("timm", "transformers")  # whose networks a study may name
LARGEST_SHARE = 0.02  # of the time between two checkpoints, for writing one
FIRST_GUESS_SECONDS = 0.01


class Resuming(Callback):
    """Takes checkpoints, and puts a training back to where the last one was taken."""

    def __init__(self, job: Job, rank: Rank, batches: Batches, history: History) -> None:
        self.job, self.rank, self.batches, self.history = job, rank, batches, history
        self.folder = job.resume_folder
        self.made_with = fingerprint(job.settings)
        self.cost_seconds = FIRST_GUESS_SECONDS
        self.saved = time.perf_counter()
        self.resumed = False
        self.tested = False
        self.accumulate = job.settings.get("gradient_accumulation_steps", 1)
        self.steps: Steps

    def load(self, state: dict[str, Any]) -> None:
        """Take from a checkpoint what is not Lightning's.

        Raises:
            JobError: it was made on another kind of machine or with other packages.
        """
        if state["made_with"] != self.made_with:
            raise JobError(
                f"{self.folder}: this run was begun with {_words(state['made_with'])}; here is "
                f"{_words(self.made_with)}, which would give other bits: go on there, or delete "
                "the folder to start anew",
                ExitCode.CHANGED,
            )
        self.job.ledger.resume(state["seconds"])
        self.job.meter.resume(state["measured"])
        self.history.restore(state["history"])
        self.batches.next = state["batch"]
        self.resumed = not state["finished"]
        print(f"resumed at batch {state['batch']}", flush=True)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.job.supervision.listen()
        self.job.supervision.careful(True)
        self.saved = time.perf_counter()
        if self.resumed:
            if (
                self._place() and not self.steps.by_round
            ):  # Lightning does so itself at the beginning of a round
                for callback in trainer.callbacks:
                    callback.on_train_epoch_start(trainer, module)
                module.on_train_epoch_start()
            else:
                trainer.fit_loop.restarting = False

    def before_batch(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if trainer.fit_loop.restarting:  # what follows is none: schedulers would be skipped
            trainer.fit_loop.restarting = False
        stopping = self.job.supervision.reason is not None
        saving = (stopping or self._due()) and self._possible(trainer, module)
        if self.rank.agree([saving])[0]:
            self._save(trainer)
            self.job.supervision.check()

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.job.supervision.careful(False)
        with self.job.ledger.spend("write"):
            state = self._ours(finished=True)
            if self.rank.number == 0:
                checkpoints.write(self.folder, self.batches.next, state)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what Lightning does not save, and set its counters to between two batches."""
        checkpoint |= self._ours(finished=False)
        for key in ("hyper_parameters", "hparams_name", "hparams_type"):
            checkpoint.pop(key, None)  # of no use here, and perhaps of any type
        first, place = divmod(self.batches.next - 1, self.batches.per_round)
        done = self.batches.next - 1
        if self.steps.by_round:  # to Lightning the round has not begun, and is one batch
            place, done = 0, first
        loops = checkpoint["loops"]["fit_loop"]
        begun = first + (place > 0)
        epochs = {"ready": begun, "started": begun, "processed": first, "completed": first}
        loops["epoch_progress"] = {"total": epochs, "current": dict(epochs)}
        counted = ("ready", "started", "processed", "completed")
        loops["epoch_loop.batch_progress"] = {
            "total": dict.fromkeys(counted, done),
            "current": dict.fromkeys(counted, place),
            "is_last_batch": False,
        }

    def _ours(self, finished: bool) -> dict[str, Any]:
        self.job.supervision.note()
        total = self.job.ledger.total()
        return {
            "finished": finished,
            "batch": self.batches.next - (not finished),
            "history": self.history.state(),
            "seconds": {phase: value for phase, value in total.items() if phase != "wall"},
            "measured": self.job.meter.total(),
            "made_with": self.made_with,
        }

    def _place(self) -> int:
        """How many batches of the round are done."""
        return self.batches.next % self.batches.per_round

    def _possible(self, trainer: pl.Trainer, module: pl.LightningModule) -> bool:
        """Whether nothing is under way here that a checkpoint would lose."""
        place = (self.batches.next - 1) % self.batches.per_round
        if place == 0:
            return True
        gathered = bool(trainer._results) or any(map(_is_metric, module.modules()))
        return place % self.accumulate == 0 and not gathered

    def _due(self) -> bool:
        elapsed = time.perf_counter() - self.saved
        interval = self.job.execution.checkpoint_seconds
        if interval and elapsed < self.cost_seconds / LARGEST_SHARE:
            return False
        return (self.batches.next - 1) % self.batches.per_round == 0 or elapsed >= interval

    def _save(self, trainer: pl.Trainer) -> None:
        if self.batches.next == 1:
            return  # nothing has been learnt yet
        self.history.check(trainer)
        start = time.perf_counter()
        with self.job.ledger.spend("checkpoint"):
            trainer.save_checkpoint(self.folder / str(self.batches.next - 1))
            if self.rank.number == 0 and not self.tested:
                self._test()
        self.saved = time.perf_counter()
        self.cost_seconds = self.saved - start

    def _test(self) -> None:
        """Read the first checkpoint again: a module or callback may keep what cannot be read."""
        self.tested = True
        if checkpoints.newest(self.folder) is None:
            raise JobError(
                f"{self.folder}: a checkpoint of this run cannot be read again: the module or a "
                "callback puts objects into its state that are neither tensors nor numbers, texts, "
                "lists and dicts of these",
                ExitCode.CODE,
            )


def fingerprint(settings: dict[str, Any]) -> dict[str, Any]:
    """What decides the bits of a result besides settings, code, data and seed."""
    device = gpus.describe(settings["device"], settings["threads"], settings.get("devices", 1))
    return {
        "torch": str(torch.__version__),
        "pytorch-lightning": pl.__version__,
        "numpy": np.__version__,
        **{
            name: version
            for name, version in environment.packages().items()
            if name in LIBRARIES and settings["model"]["name"].startswith(f"{name}:")
        },
        "instructions": torch.backends.cpu.get_cpu_capability(),
        **{f"device {key}": value for key, value in device.items()},
    }


def _words(made_with: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in made_with.items())


def _is_metric(module: torch.nn.Module) -> bool:
    return any(kind.__module__.startswith("torchmetrics") for kind in type(module).__mro__)
