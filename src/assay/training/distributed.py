"""Several devices: a process for each, forked from the job's own process, which is rank 0.

Only rank 0 writes, prints, handles signals and holds locks and leases; the others end with it.
"""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy, Strategy
from torch import Tensor

from assay.devices.telemetry import Meter
from assay.jobs.job import Job, explained, title
from assay.runs import errors
from assay.runs.errors import ExitCode, JobError
from assay.runs.supervision import NoSupervision, end_with
from assay.study.training_settings import TrainingSettings
from assay.training.batches import torch_device
from assay.training.fsdp import FSDPStrategy

ADDRESS = "127.0.0.1"
POLL_SECONDS = 0.05
CAUSE_SECONDS = 2.0  # for which rank 0, after an error, waits for another process that caused it
HANG_SECONDS = 20.0  # after the end of another process, rank 0 may hang for this long


@dataclass(frozen=True)
class World:
    """The processes of a training, seen from one of them.

    Attributes:
        rank: of this process; 0 is the job's own.
        world_size: number of processes.
        group: process group for values on the host, so that no device is waited for.
    """

    rank: int = 0
    world_size: int = 1
    group: Any = None

    def gather(self, values: Tensor) -> Tensor:
        """Return the values of all ranks: (world_size, ...)."""
        if self.world_size == 1:
            return values[None]
        gathered = [torch.empty_like(values) for _ in range(self.world_size)]
        dist.all_gather(gathered, values, group=self.group)
        return torch.stack(gathered)

    def broadcast(self, values: list[float]) -> list[float]:
        """Return the values of rank 0, on all ranks."""
        if self.world_size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.broadcast(tensor, 0, group=self.group)
        return tensor.tolist()


class Environment(LightningEnvironment):
    """Tells Lightning which process this is, and that it need not start the others."""

    creates_processes_externally = True

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def local_rank(self) -> int:
        return self.world.rank


def strategy(settings: TrainingSettings, world: World) -> Strategy | str:
    """Return how Lightning trains in a world: on one device, by DDP, or by FSDP."""
    if world.group is None:
        return "auto"
    if settings.fsdp:
        return FSDPStrategy()
    # DDP would otherwise rebuild its gradient buckets after the first step, and so sum in another
    # order from then on; a resumed training would do so one step later than an undisturbed one.
    return DDPStrategy(find_unused_parameters=True)


@contextmanager
def processes(job: Job, settings: TrainingSettings, world_size: int) -> Iterator[World]:
    """Run a block in several processes at once; after the block only rank 0 is left.

    The process must not have used CUDA, nor computed with several threads, before the block.

    Raises:
        JobError: one of the processes ended before its work was done.
    """
    if world_size == 1:
        yield World()
        return
    read_end, write_end = os.pipe()
    server = socket.create_server((ADDRESS, 0), backlog=world_size)
    rank, children = _fork(world_size)
    if rank:
        yield from _run_worker(job, settings, World(rank, world_size), server, write_end)
    os.close(write_end)
    workers = _Workers(job, children, read_end)
    try:
        with workers.watched():
            yield from _joined(settings, World(0, world_size), server)
    except JobError:
        raise
    except Exception as error:
        if cause := workers.cause():
            raise cause from error
        raise
    finally:
        workers.kill()


def _fork(world_size: int) -> tuple[int, dict[int, int]]:
    """Return this process' rank, and on rank 0 the ids of the others, which block signals."""
    job, children = os.getpid(), {}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    for rank in range(1, world_size):
        child = os.fork()
        if not child:
            end_with(job)
            return rank, {}
        children[rank] = child
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return 0, children


def _joined(settings: TrainingSettings, world: World, server: socket.socket) -> Iterator[World]:
    """Join the process group for a block, and leave it once all processes are done."""
    os.environ["OMP_NUM_THREADS"] = str(settings.threads)  # else Lightning decides
    torch.set_num_threads(settings.threads)
    device = torch_device(settings.device, world.rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # no other machine can join
    port, is_server = server.getsockname()[1], world.rank == 0
    listening = server.detach() if is_server else server.close()
    store = dist.TCPStore(ADDRESS, port, world.world_size, is_server, master_listen_fd=listening)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=world.rank, world_size=world.world_size)
    group = dist.new_group(backend="gloo")
    yield replace(world, group=group)
    dist.barrier(group)
    dist.destroy_process_group()


def _run_worker(
    job: Job, settings: TrainingSettings, world: World, server: socket.socket, write_end: int
) -> Iterator[World]:
    """Run the block in a process other than rank 0, and end the process."""
    code = 0
    try:
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        job.supervision, job.meter = NoSupervision(), Meter()
        yield from _joined(settings, world, server)
    except BaseException as error:
        code, reason = errors.explain(error, job.settings, job.output)
        os.write(write_end, f"{int(code)} {_title(world.rank)}: {reason}\n".encode())
    finally:
        os._exit(code)


class _Workers:
    """The processes other than rank 0, as rank 0 sees them."""

    def __init__(self, job: Job, children: dict[int, int], read_end: int) -> None:
        os.set_blocking(read_end, False)
        self.job, self.running, self.read_end = job, children, read_end
        self.failure: JobError | None = None
        self.done = threading.Event()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """End rank 0 if it hangs during a block because another process ended."""
        watch = threading.Thread(target=self._watch, daemon=True)
        watch.start()
        try:
            yield
        finally:
            self.done.set()
            watch.join()

    def _watch(self) -> None:
        while not self.failure and not self.done.wait(POLL_SECONDS):
            self._poll()
        if self.failure and not self.done.wait(HANG_SECONDS):
            job = self.job
            name = title(job.stage, job.seed, job.output)
            with suppress(SystemExit), explained(name, job.settings, job.output):
                raise self.failure
            os._exit(self.failure.code)

    def cause(self) -> JobError | None:
        """Return the error of another process, which may be about to end; None without one."""
        until = time.monotonic() + CAUSE_SECONDS
        while not self.failure and time.monotonic() < until:
            self._poll()
            time.sleep(POLL_SECONDS)
        return self.failure

    def kill(self) -> None:
        """Kill the processes that still run."""
        for child in self.running.values():
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        os.close(self.read_end)

    def _poll(self) -> None:
        """Look for processes that have ended, and keep the error of the first that failed."""
        codes = {}
        for rank, child in list(self.running.items()):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                del self.running[rank]
                codes[rank] = os.waitstatus_to_exitcode(status)
        killed = {rank: code for rank, code in codes.items() if code < 0}
        for rank, code in killed.items():
            self.failure = JobError(
                f"{_title(rank)} {errors.describe_exit(code, '')}", ExitCode.STOPPED
            )
        if any(codes.values()) and not killed:
            self.failure = self._first_error()

    def _first_error(self) -> JobError:
        """Return the first error that was written: the others follow from it."""
        try:
            code, _, reason = os.read(self.read_end, 1 << 16).decode().split("\n")[0].partition(" ")
        except BlockingIOError:
            what = "the process of a device exited without an error message"
            return JobError(f"{what}; a plug-in may have called sys.exit()", ExitCode.CODE)
        return JobError(reason, ExitCode(int(code)))


def _title(rank: int) -> str:
    return f"the process of device {rank}"
