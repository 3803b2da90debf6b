"""Floating-point operations: how many a training needs, and how many a device can do."""

import copy
import time
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from assay import randomness

PRODUCT_SIZE = {"cpu": 512, "cuda": 4096}
REPEATS = 5


def per_sample(
    module: pl.LightningModule, batch: dict[str, Tensor], context: Any
) -> tuple[float | None, str | None]:
    """Operations of matrix products and convolutions in a training step, forward and backward.

    They are counted on a copy, so that the module stays as it is.

    Args:
        module: not attached to a trainer.
        batch: tensors (n, ...) on the module's device.
        context: in which a network computes in the study's precision.

    Returns:
        Operations per example, or why they cannot be counted.
    """
    drawn = randomness.state()
    try:
        copied = copy.deepcopy(module)
        copied.train()
        with FlopCounterMode(display=False) as counter:
            with context:
                output = copied.training_step(batch, 0)
            (output["loss"] if isinstance(output, dict) else output).backward()
    except Exception as error:  # a module may do anything, and trains all the same
        words = str(error).strip().splitlines() or [""]
        return None, f"a step alone fails: {type(error).__name__}: {words[0]}"
    finally:
        randomness.restore(drawn)
    return counter.get_total_flops() / len(next(iter(batch.values()))), None


def peak_per_second(device: torch.device, precision: str) -> float:
    """Operations per second of a matrix product, the best of some, with the present threads."""
    kind = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision, torch.float32)
    size = PRODUCT_SIZE[device.type]
    factor = torch.ones(size, size, device=device, dtype=kind)
    best = float("inf")
    for _ in range(REPEATS):
        _wait(device)
        begun = time.perf_counter()
        factor @ factor
        _wait(device)
        best = min(best, time.perf_counter() - begun)
    return 2 * size**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
