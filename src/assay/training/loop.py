"""Takes the steps of a training, at the rate of a plain loop where the module allows it."""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.model_helpers import is_overridden
from pytorch_lightning.utilities.types import LRSchedulerConfig
from torch import Tensor

from assay.jobs.job import Job
from assay.runs.errors import ExitCode, JobError
from assay.training import compile
from assay.training.batches import Batch, Batches
from assay.training.compile import Compiled

# What a module can say about a single step. One that does goes through Lightning step by step.
HOOKS = (
    "backward",
    "clip_gradients",
    "configure_gradient_clipping",
    "lr_scheduler_step",
    "on_after_backward",
    "on_after_batch_transfer",
    "on_before_backward",
    "on_before_batch_transfer",
    "on_before_optimizer_step",
    "on_before_zero_grad",
    "on_train_batch_end",
    "on_train_batch_start",
    "on_train_epoch_start",
    "optimizer_step",
    "optimizer_zero_grad",
    "transfer_batch_to_device",
)
PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "64-true")  # those that scale no loss


class Steps(Callback):
    """Takes all steps of a round where Lightning is about to take its first.

    To Lightning a round is then one batch in which the module optimizes by itself, and nothing
    happens there. Counters, schedules by epoch, checkpoints and validation stay Lightning's, and
    the arithmetic is that of automatic optimization to the last bit. A module that has a say in
    single steps is left to Lightning.
    """

    def __init__(self, job: Job, batches: Batches, around: list[Callback]) -> None:
        """Prepare to take them.

        Args:
            job: its settings say `gradient_accumulation_steps` and `compile`.
            batches: what is learnt from.
            around: whoever wants to be called before or after each batch. `before_batch(trainer,
                module)` comes before it is used, when `batches.next` is the number of the one
                after it; `after_batch(trainer, loss)` when the weights were changed.
        """
        self.job, self.batches = job, batches
        self.accumulate = job.settings.get("gradient_accumulation_steps", 1)
        self.mode = job.settings.get("compile", "none")
        self.to_compile = self.mode != "none"
        self.before = [each.before_batch for each in around if hasattr(each, "before_batch")]
        self.after = [each.after_batch for each in around if hasattr(each, "after_batch")]
        self.by_round = False

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        self.by_round = (
            module.automatic_optimization
            and trainer.precision in PRECISIONS
            and not any(is_overridden(hook, module) for hook in HOOKS)
        )
        self.training_step = module.training_step
        if self.to_compile:
            threads = self.job.settings["threads"]
            self.training_step = Compiled(module.training_step, self.mode, threads)
            if not self.by_round:
                module.training_step = self.training_step

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.numbered = _is_numbered(self.training_step)
        self.context = trainer.precision_plugin.train_step_context
        self.alone = contextlib.nullcontext
        if trainer.precision == "32-true":
            self.context = contextlib.nullcontext
        if isinstance(
            trainer.strategy, DDPStrategy
        ):  # through the wrapper that averages gradients over the devices
            self.training_step = trainer.strategy.training_step
            self.context, self.alone = contextlib.nullcontext, trainer.strategy.block_backward_sync

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any
    ) -> None:
        if self.to_compile:
            self.to_compile = False
            with self.job.ledger.spend("compile"):
                batch = self.batches.on_device(self.batches[self.batches.next])
                compile.warm_up(module, lambda at: self._backward(trainer, batch, at))
        if not self.by_round:
            for call in self.before:
                call(trainer, module)
            return
        self._round(trainer, module)

        # where these are the module's and the strategy's, they would take part in a step of nothing
        own, wrapped = vars(module).get("training_step"), trainer.strategy.model

        def nothing(*_: Any) -> None:
            del module.training_step
            if own is not None:
                module.training_step = own
            module.automatic_optimization, trainer.strategy.model = True, wrapped

        module.automatic_optimization, module.training_step = False, nothing
        trainer.strategy.model = module

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *_: Any
    ) -> None:
        if not self.by_round:
            loss = _loss(outputs, trainer) * self.accumulate  # of which Lightning gives the share
            for call in self.after:
                call(trainer, loss)

    def _round(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        [optimizer] = trainer.strategy.optimizers
        schedules = [c for c in trainer.lr_scheduler_configs if c.interval == "step"]
        counter = trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step
        accumulate, before, after = self.accumulate, self.before, self.after
        for batch in self.batches:
            for call in before:
                call(trainer, module)
            place = (self.batches.next - 1) % self.batches.per_round
            if place % accumulate == 0:
                optimizer.zero_grad()
            last = (place + 1) % accumulate == 0
            with contextlib.nullcontext() if last else self.alone():
                loss = self._backward(trainer, batch, place)
            if last:
                counter.increment_ready()
                optimizer.step()
                counter.increment_completed()
                for schedule in schedules:
                    if _is_ours(schedule, place + 1, self.batches.per_round):
                        schedule.scheduler.step()
            for call in after:
                call(trainer, loss)

    def _backward(self, trainer: pl.Trainer, batch: Batch, place: int) -> Tensor:
        """Compute the gradients of a batch; returns its loss."""
        with self.context():
            output = self.training_step(*((batch, place) if self.numbered else (batch,)))
        loss = _loss(output, trainer)
        if self.accumulate == 1:
            loss.backward()
            return loss.detach()
        share = loss / self.accumulate
        share.backward()
        return share.detach() * self.accumulate  # as Lightning rounds it


class Rounds:
    """What Lightning iterates over: the batches of a round, or the round as one."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps

    def __len__(self) -> int:
        return 1 if self.steps.by_round else len(self.steps.batches)

    def __iter__(self) -> Iterator[Any]:
        return iter((0,)) if self.steps.by_round else iter(self.steps.batches)


def _is_numbered(training_step: Callable[..., Any]) -> bool:
    """Whether it takes the number of the batch as well."""
    parameters = inspect.signature(training_step).parameters.values()
    return len(parameters) > 1 or any(p.kind == p.VAR_POSITIONAL for p in parameters)


def _loss(output: Any, trainer: pl.Trainer) -> Tensor:
    loss = output.get("loss") if isinstance(output, dict) else output
    if loss is None:
        what = f"training_step returned no loss at step {trainer.global_step}"
        raise JobError(f"{what}: return it, with manual optimization too", ExitCode.CODE)
    return loss


def _is_ours(schedule: LRSchedulerConfig, done: int, per_round: int) -> bool:
    """Whether a schedule by step is due, and not left to Lightning, for which a round is a step."""
    every = schedule.frequency
    return done % every == 0 and not (every == 1 and done == per_round)
