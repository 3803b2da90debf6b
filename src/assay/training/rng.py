"""Every random number is a function of the seed and of what it is drawn for."""

import hashlib
import json
import random
from typing import Any

import numpy as np
import torch


def mix(seed: int, *purpose: str | int) -> int:
    """A 32-bit seed for one purpose, such as `mix(3, "step", 120)`."""
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
    """Where the generators stand, as plain values and tensors."""
    _, keys, *rest = np.random.get_state()
    cuda = torch.cuda.default_generators if torch.cuda.is_initialized() else ()
    return {
        "python": random.getstate(),
        "numpy": [torch.from_numpy(keys.astype(np.int64)), *rest],
        "torch": [one.get_state() for one in (torch.default_generator, *cuda)],
    }


def restore(state: dict[str, Any]) -> None:
    """Put the generators back to where `state` has found them."""
    random.setstate(state["python"])
    keys, *rest = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *rest))
    cuda = torch.cuda.default_generators if torch.cuda.is_initialized() else ()
    for generator, one in zip((torch.default_generator, *cuda), state["torch"], strict=True):
        generator.set_state(one)


def permutation(seed: int, epoch: int, count: int) -> torch.Tensor:
    """The order of `count` examples in one epoch, on the CPU, the same for every device."""
    generator = torch.Generator().manual_seed(mix(seed, "order", epoch))
    return torch.randperm(count, generator=generator)
