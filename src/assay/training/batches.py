"""Batches sliced from tensors in memory; in the device's memory, where they fit."""

import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from assay.runs import supervision
from assay.training import rng

Batch = dict[str, Tensor]
ALIGNMENT_BYTES = 64
BLOCK_BYTES, BLOCK_BATCHES = 1_000_000, 1024  # limits of what is gathered at once, by field
HOST = torch.device("cpu")


class Batches(Dataset):
    """Batches sliced from tensors in memory; batch b is a function of the seed and b alone.

    The examples form an endless stream, one shuffled epoch after another, that is divided into full
    batches. One iteration yields the batches of a validation interval, or the rest of one.

    Attributes:
        next: number of the batch that is yielded next.
    """

    def __init__(
        self,
        data: Batch,
        size: int,
        per_interval: int,
        seed: int,
        workers: int = 0,
        device: torch.device = HOST,
        rank: int = 0,
        world_size: int = 1,
        on_wait: Callable[[float], None] = lambda seconds: None,
    ) -> None:
        """Divide tensors into batches.

        Args:
            data: tensors (n, ...) by field.
            size: examples in a batch.
            per_interval: batches in a validation interval.
            seed: decides the order.
            workers: processes that gather batches ahead; their number changes no batch.
            device: where batches are used. All data is kept there, unless there are workers or it
                would fill more than half of the device's free memory.
            rank: yields every `world_size`th example of a batch, starting with this one.
            world_size: number of processes that share a batch; divides `size`.
            on_wait: called with the seconds for which the training waited for batches.
        """
        self.on_wait = on_wait
        self.size, self.per_interval, self.workers = size, per_interval, workers
        self.device, self.rank, self.world_size = device, rank, world_size
        self.share = size // world_size
        self.placement = HOST if workers else placement(data, device)
        self.data = to_device(data, self.placement)
        self.count = len(next(iter(data.values())))
        self.next = 0
        self.block_batches = self._block_batches()
        self._order = lru_cache(maxsize=2)(
            lambda epoch: rng.permutation(seed, epoch, self.count).to(self.placement)
        )

    def __len__(self) -> int:
        return self.per_interval

    def __iter__(self) -> Iterator[Batch]:
        end = (self.next // self.per_interval + 1) * self.per_interval
        numbers = range(self.next, end)
        batches = self._loaded(numbers) if self.workers else self._sliced(numbers)
        for number, batch in zip(numbers, batches, strict=True):
            self.next = number + 1
            yield self.on_device(batch)

    def __getitem__(self, number: int) -> Batch:
        rows = self.rows(number)
        return {name: tensor[rows] for name, tensor in self.data.items()}

    def on_device(self, batch: Batch) -> Batch:
        """Return a batch on the device, copied asynchronously, in the types that networks take."""
        if self.placement == self.device:
            return as_input(batch)
        pinned = {name: tensor.pin_memory() for name, tensor in batch.items()}
        copied = {name: t.to(self.device, non_blocking=True) for name, t in pinned.items()}
        return as_input(copied)

    def rows(self, number: int, batches: int = 1) -> Tensor:
        """Return this rank's indices of batch `number` and the next: (batches * share,)."""
        start, end = number * self.size, (number + batches) * self.size
        epochs = range(start // self.count, (end - 1) // self.count + 1)
        offset = epochs[0] * self.count
        order = torch.cat([self._order(epoch) for epoch in epochs])
        return order[start - offset : end - offset][self.rank :: self.world_size]

    def _loaded(self, numbers: range) -> Iterator[Batch]:
        """Yield batches that worker processes gather."""
        loader = DataLoader(
            self,
            batch_size=None,
            sampler=numbers,
            num_workers=self.workers,
            multiprocessing_context="fork",
            worker_init_fn=partial(_start_worker, os.getpid()),
            generator=torch.Generator(),
            pin_memory=self.device != HOST,
        )
        started = time.perf_counter()
        batches = iter(loader)
        while (batch := next(batches, None)) is not None:
            self.on_wait(time.perf_counter() - started)
            yield batch
            started = time.perf_counter()

    def _sliced(self, numbers: range) -> Iterator[Batch]:
        """Yield batches that this process gathers, a block at once."""
        first = None
        for number in numbers:
            index = number % self.block_batches
            if first != number - index:
                first, started = number - index, time.perf_counter()
                rows = self.rows(first, self.block_batches)
                block = {name: tensor[rows] for name, tensor in self.data.items()}
                self.on_wait(time.perf_counter() - started)
            start, end = index * self.share, (index + 1) * self.share
            yield {name: tensor[start:end] for name, tensor in block.items()}

    def _block_batches(self) -> int:
        """Return how many batches to gather at once so that each stays aligned in memory.

        A kernel may sum in another order where the first number has another place in a cache line.
        """
        sizes = [tensor[:1].nbytes * self.share for tensor in self.data.values()]
        if any(size % ALIGNMENT_BYTES for size in sizes):
            return 1
        return min(BLOCK_BATCHES, max(1, BLOCK_BYTES // max(1, *sizes)))


def torch_device(device: str, rank: int = 0) -> torch.device:
    """Return the device of a process, given the setting `device`: `cpu` or `gpu`."""
    return torch.device("cuda", rank) if device == "gpu" else HOST


def placement(data: Batch, device: torch.device) -> torch.device:
    """Return where to keep data: on the device, unless it fills half of its free memory."""
    if device == HOST:
        return HOST
    free_bytes, _ = torch.cuda.mem_get_info(device)
    data_bytes = sum(min(t.nbytes, t.untyped_storage().nbytes()) for t in data.values())
    return device if 2 * data_bytes < free_bytes else HOST


def to_device(data: Batch, device: torch.device) -> Batch:
    """Return data on a device; the windows of a stream stay views of the stream."""
    return {name: _to_device(tensor, device) for name, tensor in data.items()}


def _to_device(tensor: Tensor, device: torch.device) -> Tensor:
    if tensor.device == device or tensor.is_contiguous():
        return tensor.to(device)
    shape, strides, start = tensor.shape, tensor.stride(), tensor.storage_offset()
    length = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) + 1
    return tensor.as_strided((length,), (1,), start).to(device).as_strided(shape, strides)


def as_input(batch: Batch) -> Batch:
    """Return a batch in the types that networks take: image bytes / 255, tokens as int64."""
    if not any(tensor.dtype in (torch.uint8, torch.int32) for tensor in batch.values()):
        return batch
    return {name: _as_input(tensor) for name, tensor in batch.items()}


def _as_input(tensor: Tensor) -> Tensor:
    if tensor.dtype == torch.uint8:
        return tensor.float().div_(255)
    return tensor.long() if tensor.dtype == torch.int32 else tensor


def _start_worker(training: int, worker: int) -> None:
    """Let a worker end with the training process, and ignore signals, which that process handles.

    PyTorch's own check starts later, and a worker that outlives the process keeps its lock.
    """
    supervision.end_with(training)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


class SequentialBatches:
    """All examples once, in order, in batches of nearly equal size.

    A batch is a copy, so code that changes it in place does not change the next validation.
    """

    def __init__(self, data: Batch, max_size: int) -> None:
        self.data = data
        self.count = len(next(iter(data.values())))
        self.size = math.ceil(self.count / math.ceil(self.count / max_size))

    def __len__(self) -> int:
        return math.ceil(self.count / self.size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, self.count, self.size):
            rows = slice(start, start + self.size)
            yield as_input({name: tensor[rows].clone() for name, tensor in self.data.items()})
