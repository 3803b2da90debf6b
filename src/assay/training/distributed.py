"""Several devices: a process for each, forked from the job's own, which is rank 0.

Only rank 0 writes, prints, takes signals and holds what the job holds; the others end with it.
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
from torch import Tensor

from assay.devices.telemetry import Meter
from assay.jobs.job import Job, explained, title
from assay.runs import errors
from assay.runs.errors import ExitCode, JobError
from assay.runs.supervision import Unwatched, end_with

HOST = "127.0.0.1"
LOOK_SECONDS = 0.05
CAUSE_SECONDS = 2.0  # within which the end of a process explains an error of rank 0
HANG_SECONDS = 20.0  # after which a process that has ended takes with it a rank 0 that hangs


@dataclass(frozen=True)
class Rank:
    """One process of a training, and its way to speak with the others.

    Attributes:
        number: 0 is the job's own process.
        count: of processes.
        group: for what is said between them about numbers on the host; no device is waited for.
    """

    number: int = 0
    count: int = 1
    group: Any = None

    def gather(self, values: Tensor) -> Tensor:
        """The values of all ranks: (count, ...)."""
        if self.count == 1:
            return values[None]
        found = [torch.empty_like(values) for _ in range(self.count)]
        dist.all_gather(found, values, group=self.group)
        return torch.stack(found)

    def agree(self, values: list[float]) -> list[float]:
        """The values of rank 0, for all."""
        if self.count == 1:
            return values
        found = torch.tensor(values, dtype=torch.float64)
        dist.broadcast(found, 0, group=self.group)
        return found.tolist()


ALONE = Rank()


class Environment(LightningEnvironment):
    """Tells Lightning that the processes are there already, and which of them this is."""

    creates_processes_externally = True

    def __init__(self, rank: Rank) -> None:
        super().__init__()
        self.rank = rank

    def local_rank(self) -> int:
        return self.rank.number


@contextmanager
def started(job: Job, count: int) -> Iterator[Rank]:
    """Run a block in several processes at once; after it there is rank 0 alone.

    Before it, the process must not have used CUDA, nor computed with several threads.

    Raises:
        JobError: one of the processes has ended before its work was done.
    """
    if count == 1:
        yield ALONE
        return
    heard, said = os.pipe()
    server = socket.create_server((HOST, 0), backlog=count)
    number, children = _fork(count)
    if number:
        yield from _to_the_end(job, Rank(number, count), server, said)
    os.close(said)
    crew = _Crew(job, children, heard)
    try:
        with crew.watched():
            yield from _joined(job, Rank(0, count), server)
    except JobError:
        raise
    except Exception as error:
        if cause := crew.cause():
            raise cause from error
        raise
    finally:
        crew.end()


def _fork(count: int) -> tuple[int, dict[int, int]]:
    """This process' number, and in rank 0 the others' ids by number; they never see a signal."""
    job, children = os.getpid(), {}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    for number in range(1, count):
        child = os.fork()
        if not child:
            end_with(job)
            return number, {}
        children[number] = child
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return 0, children


def _joined(job: Job, rank: Rank, server: socket.socket) -> Iterator[Rank]:
    """Join the others, and part from them once all are done."""
    threads = job.settings["threads"]
    os.environ["OMP_NUM_THREADS"] = str(threads)  # else Lightning takes what it thinks best
    torch.set_num_threads(threads)
    on_gpu = job.settings["device"] == "gpu"
    if on_gpu:
        torch.cuda.set_device(rank.number)
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # nobody else can join
    port, first = server.getsockname()[1], rank.number == 0
    listening = server.detach() if first else server.close()
    store = dist.TCPStore(HOST, port, rank.count, first, master_listen_fd=listening)
    backend = "nccl" if on_gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=rank.number, world_size=rank.count)
    group = dist.new_group(backend="gloo")
    yield replace(rank, group=group)
    dist.barrier(group)
    dist.destroy_process_group()


def _to_the_end(job: Job, rank: Rank, server: socket.socket, said: int) -> Iterator[Rank]:
    """The life of a process that is not rank 0; it ends here."""
    code = 0
    try:
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        job.supervision, job.meter = Unwatched(), Meter()
        yield from _joined(job, rank, server)
    except BaseException as error:
        code, reason = errors.explain(error, job.settings, job.output)
        os.write(said, f"{int(code)} {_named(rank.number)}: {reason}\n".encode())
    finally:
        os._exit(code)


class _Crew:
    """The processes beside rank 0, as it sees them."""

    def __init__(self, job: Job, children: dict[int, int], heard: int) -> None:
        os.set_blocking(heard, False)
        self.job, self.running, self.heard = job, children, heard
        self.failure: JobError | None = None
        self.over = threading.Event()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """End rank 0 as well where it hangs because another has ended."""
        watch = threading.Thread(target=self._watch, daemon=True)
        watch.start()
        try:
            yield
        finally:
            self.over.set()
            watch.join()

    def _watch(self) -> None:
        while not self.failure and not self.over.wait(LOOK_SECONDS):
            self._look()
        if self.failure and not self.over.wait(HANG_SECONDS):
            job = self.job
            name = title(job.stage, job.seed, job.output)
            with suppress(SystemExit), explained(name, job.settings, job.output):
                raise self.failure
            os._exit(self.failure.code)

    def cause(self) -> JobError | None:
        """Why another process has ended, if one has; it may be about to."""
        until = time.monotonic() + CAUSE_SECONDS
        while not self.failure and time.monotonic() < until:
            self._look()
            time.sleep(LOOK_SECONDS)
        return self.failure

    def end(self) -> None:
        """Leave no process behind."""
        for child in self.running.values():
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        os.close(self.heard)

    def _look(self) -> None:
        codes = {}
        for number, child in list(self.running.items()):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                del self.running[number]
                codes[number] = os.waitstatus_to_exitcode(status)
        killed = {number: code for number, code in codes.items() if code < 0}
        for number, code in killed.items():
            what = f"{_named(number)} {errors.ended(code, '')}"
            self.failure = JobError(what, ExitCode.STOPPED)
        if any(codes.values()) and not killed:
            self.failure = self._said()

    def _said(self) -> JobError:
        """What the first of those that failed has said: the others fail for want of it."""
        try:
            code, _, reason = os.read(self.heard, 1 << 16).decode().split("\n")[0].partition(" ")
        except BlockingIOError:
            return JobError("the process of a device ended and left no word", ExitCode.CODE)
        return JobError(reason, ExitCode(int(code)))


def _named(number: int) -> str:
    return f"the process of device {number}"
