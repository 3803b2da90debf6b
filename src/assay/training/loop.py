"""Takes the steps of a training, as fast as a plain loop where the module allows it."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.model_helpers import is_overridden
from pytorch_lightning.utilities.types import LRSchedulerConfig
from torch import Tensor

from assay.runs.errors import ExitCode, JobError
from assay.runs.ledger import Ledger
from assay.study.training_settings import TrainingSettings
from assay.training import lightning_internals, rng
from assay.training.batches import Batch, Batches

STEP_HOOKS = (  # Lightning takes the steps of a module that overrides one of these
    "backward", "clip_gradients", "configure_gradient_clipping", "lr_scheduler_step",
    "on_after_backward", "on_after_batch_transfer", "on_before_backward",
    "on_before_batch_transfer", "on_before_optimizer_step", "on_before_zero_grad",
    "on_train_batch_end", "on_train_batch_start", "on_train_epoch_start", "optimizer_step",
    "optimizer_zero_grad", "transfer_batch_to_device",
)  # fmt: skip
UNSCALED = ("32-true", "bf16-mixed", "bf16-true", "64-true")  # precisions without loss scaling
COMPILE_STEPS = 3  # a CUDA graph runs once to warm up and once to be recorded


class StepLoop(Callback):
    """Takes all steps of a validation interval where Lightning would take one.

    An interval is one batch to Lightning, and one epoch. Counters, schedules by epoch, checkpoints
    and validation stay Lightning's, and the arithmetic is bit for bit that of automatic
    optimization. Lightning takes the steps itself where a module overrides a hook of single steps.

    Attributes:
        by_interval: whether Lightning sees an interval as one batch; known after `setup`.
    """

    def __init__(
        self,
        settings: TrainingSettings,
        ledger: Ledger,
        batches: Batches,
        callbacks: list[Callback],
    ) -> None:
        """Prepare to take them.

        Args:
            callbacks: their `before_batch(trainer, module, number)` is called before each batch,
                and their `after_batch(trainer, loss)` after the weights were changed.
        """
        self.settings, self.ledger, self.batches = settings, ledger, batches
        self.accumulate = settings.gradient_accumulation_steps
        self.to_compile = settings.compile != "none"
        self.before = [each.before_batch for each in callbacks if hasattr(each, "before_batch")]
        self.after = [each.after_batch for each in callbacks if hasattr(each, "after_batch")]
        self.by_interval = False

    def setup(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        self.by_interval = (
            module.automatic_optimization
            and trainer.precision in UNSCALED
            and not any(is_overridden(hook, module) for hook in STEP_HOOKS)
        )
        self.training_step = module.training_step
        if self.to_compile:
            mode, threads = self.settings.compile, self.settings.threads
            self.training_step = CompiledStep(module.training_step, mode, threads)
        if self.by_interval:
            take = partial(self._take_interval, trainer, module)
            lightning_internals.take_interval_as_one_batch(trainer, module, take)
        elif self.to_compile:
            module.training_step = self.training_step

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.takes_index = _takes_index(self.training_step)
        self.context = trainer.precision_plugin.train_step_context
        self.without_sync = contextlib.nullcontext
        if trainer.precision == "32-true":
            self.context = contextlib.nullcontext
        if isinstance(trainer.strategy, DDPStrategy):  # whose wrapper averages gradients
            self.training_step = trainer.strategy.training_step
            self.context = contextlib.nullcontext
            self.without_sync = trainer.strategy.block_backward_sync

    def on_train_batch_start(
        self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any
    ) -> None:
        if self.to_compile:
            self.to_compile = False
            with self.ledger.spend("compile"):
                batch = self.batches.on_device(self.batches[self.batches.next])
                compile_step(module, partial(self._backward, trainer, batch))
        if not self.by_interval:
            for call in self.before:
                call(trainer, module, self.batches.next - 1)

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *_: Any
    ) -> None:
        if not self.by_interval:
            loss = _loss(outputs, trainer) * self.accumulate  # Lightning has divided it
            for call in self.after:
                call(trainer, loss)

    def _take_interval(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        [optimizer] = trainer.strategy.optimizers
        schedules = [c for c in trainer.lr_scheduler_configs if c.interval == "step"]
        steps = lightning_internals.optimizer_steps(trainer)
        batches, accumulate, before, after = self.batches, self.accumulate, self.before, self.after
        for batch in batches:
            number = batches.next - 1
            for call in before:
                call(trainer, module, number)
            index = number % batches.per_interval
            if index % accumulate == 0:
                optimizer.zero_grad()
            is_last = (index + 1) % accumulate == 0
            with contextlib.nullcontext() if is_last else self.without_sync():
                loss = self._backward(trainer, batch, index)
            if is_last:
                steps.increment_ready()
                optimizer.step()
                steps.increment_completed()
                for schedule in schedules:
                    if _is_due(schedule, index + 1, batches.per_interval):
                        schedule.scheduler.step()
            for call in after:
                call(trainer, loss)

    def _backward(self, trainer: pl.Trainer, batch: Batch, index: int) -> Tensor:
        """Add the gradients of a batch, and return its loss."""
        with self.context():
            output = self.training_step(*((batch, index) if self.takes_index else (batch,)))
        loss = _loss(output, trainer)
        if self.accumulate == 1:
            loss.backward()
            return loss.detach()
        share = loss / self.accumulate
        share.backward()
        return share.detach() * self.accumulate  # rounded as Lightning does


class Intervals:
    """What Lightning iterates over: the batches of an interval, or the interval as one batch."""

    def __init__(self, loop: StepLoop) -> None:
        self.loop = loop

    def __len__(self) -> int:
        return 1 if self.loop.by_interval else len(self.loop.batches)

    def __iter__(self) -> Iterator[Any]:
        return iter((0,)) if self.loop.by_interval else iter(self.loop.batches)


class CompiledStep:
    """A training step compiled with torch.compile; it takes and returns what the plain one does.

    With `reduce-overhead` a step is a CUDA graph, which overwrites what the step before it
    returned. So the loss is copied.
    """

    def __init__(self, training_step: Callable[..., Any], mode: str, threads: int) -> None:
        """Prepare to compile at the first call.

        Args:
            mode: one of torch.compile's.
            threads: that may compile.
        """
        lightning_internals.compile_reproducibly(threads)
        self.run = torch.compile(training_step, mode=mode)
        self.uses_graphs = mode == "reduce-overhead"
        functools.update_wrapper(self, training_step)

    def __call__(self, *arguments: Any) -> Any:
        if not self.uses_graphs:
            return self.run(*arguments)
        torch.compiler.cudagraph_mark_step_begin()
        output = self.run(*arguments)
        if isinstance(output, dict):
            return output | {"loss": output["loss"].clone()}
        return output if output is None else output.clone()


def compile_step(module: pl.LightningModule, backward: Callable[[int], Tensor]) -> None:
    """Compile by computing a few gradients, then restore weights, buffers and generators.

    Args:
        module: its plain attributes are not restored.
        backward: computes the gradients of a batch, given its index in the interval.

    Raises:
        JobError: the step cannot be compiled.
    """
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    generators = rng.state()
    try:
        for index in range(COMPILE_STEPS):
            module.zero_grad()  # the next run of a CUDA graph overwrites gradients
            backward(index)
    except lightning_internals.compile_errors() as error:
        what = f"the training step cannot be compiled: {str(error).strip().splitlines()[0]}"
        raise JobError(f"{what}: write compile: none", ExitCode.CODE) from error
    module.zero_grad()
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            tensor.copy_(before[name])
    rng.restore(generators)


def _takes_index(training_step: Callable[..., Any]) -> bool:
    """Return whether a training step takes the index of the batch as well."""
    parameters = inspect.signature(training_step).parameters.values()
    return len(parameters) > 1 or any(p.kind == p.VAR_POSITIONAL for p in parameters)


def _loss(output: Any, trainer: pl.Trainer) -> Tensor:
    loss = output.get("loss") if isinstance(output, dict) else output
    if loss is None:
        what = f"training_step returned no loss at step {trainer.global_step}"
        raise JobError(f"{what}: return it, with manual optimization too", ExitCode.CODE)
    return loss


def _is_due(schedule: LRSchedulerConfig, done: int, per_interval: int) -> bool:
    """Return whether to step a schedule; Lightning steps it after the last batch of an interval."""
    every = schedule.frequency
    return done % every == 0 and not (every == 1 and done == per_interval)
