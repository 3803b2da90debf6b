"""Floating-point operations: how many a training needs, and how many a device can do."""

import copy
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from assay.training import rng

META = torch.device("meta")
PRODUCT_SIZE = {"cpu": 512, "cuda": 4096}
REPEATS = 20
FUSED_ATTENTIONS = (
    "flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention",
)  # fmt: skip


def per_sample(
    module: pl.LightningModule,
    batch: dict[str, Tensor],
    device: torch.device | None,
) -> tuple[float | None, str | None]:
    """Operations of matrix products and convolutions in a training step, forward and backward.

    They are counted on a copy that has shapes and no numbers, which takes neither time nor memory;
    where a step looks at its numbers, on a copy that has them. What attention computes anew in the
    backward pass is left out, as in Chowdhery et al., PaLM (2022), appendix B, and what a causal
    mask hides is counted.

    Args:
        module: not attached to a trainer; it stays as it is.
        batch: tensors (n, ...).
        device: where a step may be computed; None where the module is too large for that.

    Returns:
        Operations per example, or why they cannot be counted.
    """
    why = ""
    for place in (META, device) if device else (META,):
        there, copied = {name: t.to(place) for name, t in batch.items()}, _copied(module, place)
        drawn = rng.state()  # of the device too, which is in use by now
        try:
            return _counted(copied, there) / len(next(iter(batch.values()))), None
        except Exception as error:  # a module may do anything, and trains all the same
            words = str(error).strip().splitlines() or [""]
            why = f"a step alone fails: {type(error).__name__}: {words[0]}"
        finally:
            rng.restore(drawn)
    return None, why


def _counted(module: pl.LightningModule, batch: dict[str, Tensor]) -> int:
    """Without the study's precision: it changes no count, and to ask a GPU for it is to use it."""
    module.train()
    with FlopCounterMode(display=False, custom_mapping=_attentions()) as counter:
        output = module.training_step(batch, 0)
        (output["loss"] if isinstance(output, dict) else output).backward()
    return counter.get_total_flops()


def _copied(module: nn.Module, place: torch.device) -> nn.Module:
    """A copy of a module, made where it is wanted."""
    weights = {
        id(one): nn.Parameter(one.detach().to(place, copy=True), one.requires_grad)
        for one in module.parameters()
    }
    buffers = {id(one): one.to(place, copy=True) for one in module.buffers()}
    return copy.deepcopy(module, weights | buffers)


def _attentions() -> dict[Any, Callable[..., int]]:
    """Formulas for fused attention, by kernel: torch has none for CPUs, where it would count 0."""

    def forward(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return sdpa_flop_count(query, key, value)

    def backward(_: Any, query: Any, key: Any, value: Any, *__: Any, **___: Any) -> int:
        return 2 * sdpa_flop_count(query, key, value)

    names = [f"_scaled_dot_product_{name}" for name in FUSED_ATTENTIONS]
    aten = torch.ops.aten
    return {getattr(aten, name): forward for name in names} | {
        getattr(aten, f"{name}_backward"): backward for name in names
    }


def peak_per_second(device: torch.device, precision: str) -> float:
    """Operations per second of a matrix product, the best of some, with the present threads."""
    kind = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision, torch.float32)
    size = PRODUCT_SIZE[device.type]
    # Equal numbers would cost a GPU less power, so it would multiply them faster than others.
    factor = torch.arange(size * size, device=device).sin().view(size, size).to(kind)
    best, exactness = float("inf"), torch.get_float32_matmul_precision()
    if device.type == "cuda":  # as convolutions are computed there, in TF32, which is the fastest
        torch.set_float32_matmul_precision("high")
    for _ in range(REPEATS):
        _wait(device)
        begun = time.perf_counter()
        factor @ factor
        _wait(device)
        best = min(best, time.perf_counter() - begun)
    torch.set_float32_matmul_precision(exactness)
    return 2 * size**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
