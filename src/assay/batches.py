"""Batches sliced from tensors in memory."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from assay import randomness


class Batches:
    """Batches sliced from tensors in memory; batch b is a function of the seed and b alone.

    The examples form an endless stream, one shuffled epoch after another, that is cut into full
    batches. One iteration is one round: the batches between two validations.
    """

    def __init__(self, data: dict[str, Tensor], size: int, per_round: int, seed: int) -> None:
        self.data, self.size, self.per_round, self.seed = data, size, per_round, seed
        self.count = len(next(iter(data.values())))
        self.rounds = 0

    def __len__(self) -> int:
        return self.per_round

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        first = self.rounds * self.per_round
        self.rounds += 1
        for number in range(first, first + self.per_round):
            rows = self.rows(number)
            yield {name: tensor[rows] for name, tensor in self.data.items()}

    def rows(self, number: int) -> Tensor:
        """The examples of batch `number`: indices (size,)."""
        start, end = number * self.size, (number + 1) * self.size
        epochs = range(start // self.count, (end - 1) // self.count + 1)
        orders = [randomness.permutation(self.seed, epoch, self.count) for epoch in epochs]
        offset = epochs[0] * self.count
        return torch.cat(orders)[start - offset : end - offset]


class InOrder:
    """All examples once, in order, in batches of nearly one size: none is left with a few."""

    def __init__(self, data: dict[str, Tensor], largest: int) -> None:
        self.data = data
        self.count = len(next(iter(data.values())))
        self.size = math.ceil(self.count / math.ceil(self.count / largest))

    def __len__(self) -> int:
        return math.ceil(self.count / self.size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for start in range(0, self.count, self.size):
            yield {name: tensor[start : start + self.size] for name, tensor in self.data.items()}
