"""Compiles a training step, with torch.compile, before the clock of the training runs."""

import functools
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from assay.runs.errors import ExitCode, JobError
from assay.training import rng

WARM_UP_STEPS = 3  # a CUDA graph runs once to warm up and once to be recorded


class Compiled:
    """A training step that has been compiled; takes and returns what the plain one does.

    Where a step is a CUDA graph (`reduce-overhead`), the next one overwrites what this one has
    returned, so the loss is copied.
    """

    def __init__(self, training_step: Callable[..., Any], mode: str, threads: int) -> None:
        """Prepare to compile at the first call.

        Args:
            mode: one of torch.compile's.
            threads: that may compile.
        """
        import torch._inductor.config as inductor

        inductor.deterministic = True  # choose kernels by rule and not by the time that they took
        inductor.fallback_random = True  # draw the same numbers as without compiling
        inductor.compile_threads = threads
        self.run = torch.compile(training_step, mode=mode)
        self.graphs = mode == "reduce-overhead"
        functools.update_wrapper(self, training_step)

    def __call__(self, *arguments: Any) -> Any:
        if not self.graphs:
            return self.run(*arguments)
        torch.compiler.cudagraph_mark_step_begin()
        output = self.run(*arguments)
        if isinstance(output, dict):
            return output | {"loss": output["loss"].clone()}
        return output if output is None else output.clone()


def warm_up(module: pl.LightningModule, backward: Callable[[int], Tensor]) -> None:
    """Compile by training a few steps, whose traces are wiped out: weights do not change.

    Args:
        module: its tensors and the generators are put back; plain attributes are not.
        backward: computes the gradients of a step at a place in a round.

    Raises:
        JobError: the step cannot be compiled.
    """
    kept = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    generators = rng.state()
    try:
        for place in range(WARM_UP_STEPS):
            module.zero_grad()  # a graph's gradients are overwritten by the next
            backward(place)
    except (torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InductorError) as error:
        what = str(error).strip().splitlines()[0]
        raise JobError(f"the training step cannot be compiled: {what}: write compile: none",
                       ExitCode.CODE) from error  # fmt: skip
    module.zero_grad()
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            tensor.copy_(kept[name])
    rng.restore(generators)
