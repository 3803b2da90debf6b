"""Floating-point operations (FLOPs) of a training, and of the device: both give the MFU."""

import copy
import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from assay.study.training_settings import TrainingSettings
from assay.training import rng
from assay.training.batches import HOST, as_input, torch_device

META = torch.device("meta")
MATMUL_SIZE = {"cpu": 512, "cuda": 4096}
REPEATS = 20
FUSED_ATTENTIONS = (
    "flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention",
)  # fmt: skip


def per_sample(
    module: pl.LightningModule, settings: TrainingSettings, train: dict[str, Tensor]
) -> tuple[float | None, str | None]:
    """Count the FLOPs of matrix products and convolutions in a training step.

    Forward and backward pass of a copy on the meta device are counted, which takes neither time nor
    memory, or of a copy with numbers where the step needs some. Attention that the backward pass
    computes again is left out, as in Chowdhery et al., PaLM (2022), appendix B; what a causal mask
    hides is counted.

    Args:
        module: not attached to a trainer; it is not changed.
        train: tensors (n, ...) by field.

    Returns:
        FLOPs per example and None, or None and why they cannot be counted.
    """
    batch = as_input({name: values[: settings.batch_size] for name, values in train.items()})
    devices = [META, torch_device(settings.device)]
    if settings.devices > 1:  # no process may use CUDA before all are forked
        devices = [META] if settings.fsdp else [META, HOST]
    missing = None
    for device in devices:
        inputs, copied = {name: t.to(device) for name, t in batch.items()}, _copied(module, device)
        generators = rng.state()  # of the device too, which is in use by now
        try:
            return _count(copied, inputs) / len(next(iter(batch.values()))), None
        except Exception as error:  # a module may raise anything here, and can still be trained
            words = str(error).strip().splitlines() or [""]
            missing = f"a step without a trainer fails: {type(error).__name__}: {words[0]}"
        finally:
            rng.restore(generators)
    return None, missing


def _count(module: pl.LightningModule, batch: dict[str, Tensor]) -> int:
    """Count in 32 bits: the precision changes no count, and autocast would initialise the GPU."""
    module.train()
    with FlopCounterMode(display=False, custom_mapping=_attentions()) as counter:
        output = module.training_step(batch, 0)
        (output["loss"] if isinstance(output, dict) else output).backward()
    return counter.get_total_flops()


def _copied(module: nn.Module, place: torch.device) -> nn.Module:
    """Return a copy of a module on a device."""
    weights = {
        id(one): nn.Parameter(one.detach().to(place, copy=True), one.requires_grad)
        for one in module.parameters()
    }
    buffers = {id(one): one.to(place, copy=True) for one in module.buffers()}
    return copy.deepcopy(module, weights | buffers)


def _attentions() -> dict[Any, Callable[..., int]]:
    """Return formulas for fused attention, by kernel: torch has none for CPUs and counts 0."""

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
    """Return the FLOPs per second of a matrix product: the best of some, with torch's threads.

    This measured peak is what the MFU (model FLOPs utilization) of a training is relative to.
    """
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision, torch.float32)
    size = MATMUL_SIZE[device.type]
    # A GPU multiplies equal numbers faster than others, because they take less power.
    factor = torch.arange(size * size, device=device).sin().view(size, size).to(dtype)
    best_seconds, precision = float("inf"), torch.get_float32_matmul_precision()
    if device.type == "cuda":  # TF32, in which convolutions are computed by default
        torch.set_float32_matmul_precision("high")
    for _ in range(REPEATS):
        _synchronize(device)
        started = time.perf_counter()
        factor @ factor
        _synchronize(device)
        best_seconds = min(best_seconds, time.perf_counter() - started)
    torch.set_float32_matmul_precision(precision)
    return 2 * size**3 / best_seconds


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
