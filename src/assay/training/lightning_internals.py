"""Every use of the private API of Lightning, and of what torch does not document.

`tests/training/test_lightning_internals.py` says which part is missing in another version.
"""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from packaging.requirements import Requirement
from pytorch_lightning.loops.optimization.automatic import _AutomaticOptimization
from torch import Tensor

# pyproject.toml asks for the same; 2.6.2 and 2.6.3 were malicious releases
REQUIREMENT = "pytorch-lightning>=2.5.5,!=2.6.2,!=2.6.3,<2.7"


def check_version(version: str) -> None:
    """Check that the private parts were tested with a version of pytorch-lightning.

    Raises:
        ImportError: they were not.
    """
    if not Requirement(REQUIREMENT).specifier.contains(version, prereleases=True):
        raise ImportError(
            f"pytorch-lightning {version} is installed, and Assay was not tested with it: "
            f"run pip install '{REQUIREMENT}'"
        )


check_version(pl.__version__)


class StepTrainer(pl.Trainer):
    """Answers a module that asks how many steps there are, for a learning-rate schedule perhaps.

    Lightning would count intervals instead of steps, and of these only the ones to train now.
    """

    def __init__(self, steps: int, **options: Any) -> None:
        super().__init__(**options)
        self.steps = steps

    @property
    def estimated_stepping_batches(self) -> int:
        return self.steps


class _IntervalOptimization(_AutomaticOptimization):
    """Lets a function take the steps of what Lightning counts as one batch."""

    def __init__(self, trainer: pl.Trainer, module: pl.LightningModule, take: Callable) -> None:
        super().__init__(trainer)
        self.module, self.take = module, take

    def run(self, *_: Any) -> dict[str, Any]:
        self.module._current_fx_name = "training_step"  # else the module's `log` fails
        try:
            self.take()
        finally:
            self.module._current_fx_name = None
        return {}


def take_interval_as_one_batch(
    trainer: pl.Trainer, module: pl.LightningModule, take: Callable[[], None]
) -> None:
    """Call `take` where Lightning would optimize on a batch.

    No public hook can take several steps with automatic optimization, and what Lightning calls
    around each step takes longer than a small step.
    """
    optimization = _IntervalOptimization(trainer, module, take)
    trainer.fit_loop.epoch_loop.automatic_optimization = optimization


def optimizer_steps(trainer: pl.Trainer) -> Any:
    """Return the counter behind `trainer.global_step`, which has no public setter.

    Its `increment_ready` and `increment_completed` are called around each optimizer step.
    """
    return trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step


def has_logged_values(trainer: pl.Trainer) -> bool:
    """Return whether a module has logged values that a checkpoint would not hold.

    `trainer.callback_metrics` does not show what is still being averaged over an epoch.
    """
    return bool(trainer._results)


def end_restart(trainer: pl.Trainer) -> None:
    """Let Lightning treat the next batch as any other after a resume.

    Otherwise it skips schedulers and validation, as if the batch had begun before the crash.
    """
    if trainer.fit_loop.restarting:
        trainer.fit_loop.restarting = False


def set_progress_between_batches(
    checkpoint: dict[str, Any], epoch: int, batches: int, index: int
) -> None:
    """Set Lightning's progress in a checkpoint to the start of a batch.

    Lightning writes checkpoints at the ends of batches only. Its counters are not public.

    Args:
        checkpoint: as `on_save_checkpoint` gets it.
        epoch: epochs that are complete.
        batches: batches that are complete, of all epochs.
        index: of these, batches of the current epoch.
    """
    loops = checkpoint["loops"]["fit_loop"]
    begun = epoch + (index > 0)
    epochs = {"ready": begun, "started": begun, "processed": epoch, "completed": epoch}
    loops["epoch_progress"] = {"total": epochs, "current": dict(epochs)}
    loops["epoch_loop.batch_progress"] = {
        "total": dict.fromkeys(epochs, batches),
        "current": dict.fromkeys(epochs, index),
        "is_last_batch": False,
    }


def changes(tensor: Tensor) -> int:
    """Return how often a tensor was changed in place, which autograd counts for its checks."""
    return tensor._version


def compile_reproducibly(threads: int) -> None:
    """Let torch.compile choose kernels by rule, and draw the numbers that an eager step draws.

    `torch.compile` takes these as options only where no `mode` is given.

    Args:
        threads: that may compile.
    """
    import torch._inductor.config as inductor

    inductor.deterministic = True
    inductor.fallback_random = True
    inductor.compile_threads = threads


def compile_errors() -> tuple[type[Exception], ...]:
    """Return what torch.compile raises for code that it cannot compile."""
    return (torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InductorError)
