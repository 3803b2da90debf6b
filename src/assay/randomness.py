"""Every random number is a function of the seed and of what it is drawn for."""

import hashlib
import json
import random

import numpy as np
import torch


def mix(seed: int, *purpose: str | int) -> int:
    """A 32-bit seed for one purpose, such as `mix(3, "step", 120)`."""
    text = json.dumps([seed, *purpose])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")


def scatter(seed: int, number: int) -> int:
    """A 32-bit seed for the `number`th of many draws; far cheaper than `mix`.

    Source: Steele, Lea and Flood, Fast splittable pseudorandom number generators (2014), the
    finalizer of SplitMix64.
    """
    mixed = (seed + (number + 1) * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return (mixed ^ (mixed >> 31)) >> 32


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


def permutation(seed: int, epoch: int, count: int) -> torch.Tensor:
    """The order of `count` examples in one epoch, on the CPU, the same for every device."""
    generator = torch.Generator().manual_seed(mix(seed, "order", epoch))
    return torch.randperm(count, generator=generator)
