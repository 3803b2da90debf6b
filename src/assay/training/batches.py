"""Batches sliced from tensors in memory: the device's, where they fit."""

import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from assay.runs import supervision
from assay.training import rng

Batch = dict[str, Tensor]
ALIGNMENT_BYTES = 64
LARGEST_BYTES = 1_000_000  # of one field that are gathered at once
HOST = torch.device("cpu")


class Batches(Dataset):
    """Batches sliced from tensors in memory; batch b is a function of the seed and b alone.

    The examples form an endless stream, one shuffled epoch after another, that is cut into full
    batches. One iteration is one round, or what is left of it: the batches up to a validation.

    Attributes:
        next: number of the batch that is handed out next.
    """

    def __init__(
        self,
        data: Batch,
        size: int,
        per_round: int,
        seed: int,
        workers: int = 0,
        device: torch.device = HOST,
        rank: int = 0,
        ranks: int = 1,
        waited: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """Cut tensors into batches.

        Args:
            data: tensors (n, ...) by field.
            size: examples in a batch.
            per_round: batches in a round.
            seed: decides the order.
            workers: processes that cut ahead; the batches are the same with any number.
            device: where batches are wanted. All data is kept there, unless workers cut it or it
                would fill more than half of the device.
            rank: which share of each batch is handed out: every `ranks`th example from this one.
            ranks: how many shares there are; it divides `size`.
            waited: is told the seconds for which batches were waited for.
        """
        self.waited = waited
        self.size, self.per_round, self.workers, self.device = size, per_round, workers, device
        self.rank, self.ranks, self.share = rank, ranks, size // ranks
        self.home = HOST if workers else home(data, device)
        self.data = all_moved(data, self.home)
        self.count = len(next(iter(data.values())))
        self.next = 0
        self.gathered = self._gathered()
        self._order = lru_cache(maxsize=2)(
            lambda epoch: rng.permutation(seed, epoch, self.count).to(self.home)
        )

    def __len__(self) -> int:
        return self.per_round

    def __iter__(self) -> Iterator[Batch]:
        numbers = range(self.next, (self.next // self.per_round + 1) * self.per_round)
        for number, batch in zip(numbers, self._cut(numbers), strict=True):
            self.next = number + 1
            yield self.on_device(batch)

    def __getitem__(self, number: int) -> Batch:
        rows = self.rows(number)
        return {name: tensor[rows] for name, tensor in self.data.items()}

    def on_device(self, batch: Batch) -> Batch:
        """A batch where it is wanted; it is copied while the device does what came before."""
        if self.home == self.device:
            return as_input(batch)
        pinned = {name: tensor.pin_memory() for name, tensor in batch.items()}
        there = {name: t.to(self.device, non_blocking=True) for name, t in pinned.items()}
        return as_input(there)

    def rows(self, number: int, batches: int = 1) -> Tensor:
        """This share of batch `number` and of those after it: indices (batches * share,)."""
        start, end = number * self.size, (number + batches) * self.size
        epochs = range(start // self.count, (end - 1) // self.count + 1)
        offset = epochs[0] * self.count
        order = torch.cat([self._order(epoch) for epoch in epochs])
        return order[start - offset : end - offset][self.rank :: self.ranks]

    def _cut(self, numbers: range) -> Iterable[Batch]:
        if not self.workers:
            return self._slices(numbers)
        loader = DataLoader(
            self,
            batch_size=None,
            sampler=numbers,
            num_workers=self.workers,
            multiprocessing_context="fork",
            worker_init_fn=partial(_begin, os.getpid()),
            generator=torch.Generator(),
            pin_memory=self.device != HOST,
        )
        return self._loaded(loader)

    def _loaded(self, loader: DataLoader) -> Iterator[Batch]:
        begun = time.perf_counter()
        ahead = iter(loader)
        while (batch := next(ahead, None)) is not None:
            self.waited(time.perf_counter() - begun)
            yield batch
            begun = time.perf_counter()

    def _gathered(self) -> int:
        """How many batches are gathered at once: as many as are small, and stay aligned in memory.

        A library may add up in another order where the first number lies elsewhere in a cache line.
        """
        taken = [tensor[:1].nbytes * self.share for tensor in self.data.values()]
        if any(count % ALIGNMENT_BYTES for count in taken):
            return 1
        return max(1, LARGEST_BYTES // max(1, *taken))

    def _slices(self, numbers: range) -> Iterator[Batch]:
        first = None
        for number in numbers:
            place = number % self.gathered
            if first != number - place:
                first, begun = number - place, time.perf_counter()
                rows = self.rows(first, self.gathered)
                block = {name: tensor[rows] for name, tensor in self.data.items()}
                self.waited(time.perf_counter() - begun)
            start, end = place * self.share, (place + 1) * self.share
            yield {name: tensor[start:end] for name, tensor in block.items()}


def home(data: Batch, device: torch.device) -> torch.device:
    """Where data is kept: on a device, unless it takes more than half of what is free there."""
    if device == HOST:
        return HOST
    free_bytes, _ = torch.cuda.mem_get_info(device)
    taken = sum(min(t.nbytes, t.untyped_storage().nbytes()) for t in data.values())
    return device if 2 * taken < free_bytes else HOST


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; windows of a stream stay a view of the stream."""
    if tensor.device == device or tensor.is_contiguous():
        return tensor.to(device)
    shape, strides, start = tensor.shape, tensor.stride(), tensor.storage_offset()
    length = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) + 1
    return tensor.as_strided((length,), (1,), start).to(device).as_strided(shape, strides)


def all_moved(data: Batch, device: torch.device) -> Batch:
    """Each field on a device."""
    return {name: moved(tensor, device) for name, tensor in data.items()}


def as_input(batch: Batch) -> Batch:
    """A batch as networks take it: bytes of images as numbers from 0 to 1, tokens as int64."""
    if not any(tensor.dtype in (torch.uint8, torch.int32) for tensor in batch.values()):
        return batch
    return {name: _as_input(tensor) for name, tensor in batch.items()}


def _as_input(tensor: Tensor) -> Tensor:
    if tensor.dtype == torch.uint8:
        return tensor.float().div_(255)
    return tensor.long() if tensor.dtype == torch.int32 else tensor


def _begin(training: int, worker: int) -> None:
    """End with the training process, and leave signals to it: it wants batches while it stops.

    PyTorch's own watch begins later, and a worker that outlived the process would keep its lock.
    """
    supervision.end_with(training)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


class InOrder:
    """All examples once, in order, in batches of nearly one size: none is left with a few.

    A batch is a copy: who changes it in place leaves the data as it was, for the next validation.
    """

    def __init__(self, data: Batch, largest: int) -> None:
        self.data = data
        self.count = len(next(iter(data.values())))
        self.size = math.ceil(self.count / math.ceil(self.count / largest))

    def __len__(self) -> int:
        return math.ceil(self.count / self.size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, self.count, self.size):
            rows = slice(start, start + self.size)
            yield as_input({name: tensor[rows].clone() for name, tensor in self.data.items()})
