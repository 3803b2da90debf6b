"""Random number generators, seeded from the run's seed and the purpose of each draw."""

import hashlib
import json
import random
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

BLOCK_BATCHES = 64  # between two seedings, each of which takes microseconds


def mix(seed: int, *purpose: str | int) -> int:
    """Return a 32-bit seed for one purpose, such as `mix(3, "step", 120)`."""
    text = json.dumps([seed, *purpose])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


def reseed(seed: int) -> None:
    """Seed the generators of Python, NumPy and torch (all devices in use).

    It seeds torch's generators one by one: `torch.manual_seed` takes a hundred times longer.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        for generator in torch.cuda.default_generators:
            generator.manual_seed(seed)


def state() -> dict[str, Any]:
    """Return the states of all generators, as plain values and tensors."""
    _, keys, *rest = np.random.get_state()
    cuda = torch.cuda.default_generators if torch.cuda.is_initialized() else ()
    return {
        "python": random.getstate(),
        "numpy": [torch.from_numpy(keys.astype(np.int64)), *rest],
        "torch": [one.get_state() for one in (torch.default_generator, *cuda)],
    }


def restore(state: dict[str, Any]) -> None:
    """Set all generators to what `state` returned."""
    random.setstate(state["python"])
    keys, *rest = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *rest))
    cuda = torch.cuda.default_generators if torch.cuda.is_initialized() else ()
    for generator, one in zip((torch.default_generator, *cuda), state["torch"], strict=True):
        generator.set_state(one)


def permutation(seed: int, epoch: int, count: int) -> torch.Tensor:
    """Return the order of `count` examples in one epoch, on the CPU, equal for every device."""
    generator = torch.Generator().manual_seed(mix(seed, "order", epoch))
    return torch.randperm(count, generator=generator)


class SeedBatches(Callback):
    """Seeds the generators before each block of batches, so a draw depends on the batch number.

    A validation, or a resume from a checkpoint, does not change the draws within a block. With
    several devices a block is one batch, because a checkpoint keeps the generators of rank 0 only.
    """

    def __init__(self, seed: int, rank: int = 0, world_size: int = 1) -> None:
        self.seed = seed
        self.block_batches = BLOCK_BATCHES if world_size == 1 else 1
        self.purpose = ("block",) if world_size == 1 else ("rank", rank)
        self.saved: dict[str, Any] | None = None

    def before_batch(self, trainer: pl.Trainer, module: pl.LightningModule, number: int) -> None:
        if self.saved is not None:
            restore(self.saved)
            self.saved = None
        block, index = divmod(number, self.block_batches)
        if index == 0:
            reseed(mix(self.seed, *self.purpose, block))

    def on_validation_start(self, *_: Any) -> None:
        self.saved = state()
        reseed(mix(self.seed, "validation"))

    def state_dict(self) -> dict[str, Any]:
        return {"saved": self.saved or state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.saved = state_dict["saved"]
