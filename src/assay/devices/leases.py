"""Leases: which job has which GPU, held by locks that end with it, however it ends.

A lock is one of the kernel's, on a file named after the device, so that it counts among all
processes and users of a machine. A job that has a GPU to itself locks its file alone; jobs that
share it lock the file together, and a place on it each.
"""

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from assay.devices import gpus
from assay.devices.gpus import Gpu
from assay.runs import supervision
from assay.runs.errors import ExitCode, JobError
from assay.runs.locks import is_at

FOLDER = "ASSAY_LEASES"  # the variable that names another folder than this
DEFAULT_FOLDER = "/tmp/assay-leases"  # of the machine, not of a job: TMPDIR may be either
LOOK_SECONDS = 0.1
PATIENCE_SECONDS = 30.0  # after which a job may keep some GPUs while it waits for others
FOREIGN_BYTES = 1 << 30  # more than this on a GPU that nobody holds means that somebody uses it

HELD: list[IO[str]] = []  # locks of this process, which last as long as it does


def take(
    number: int, jobs_per_gpu: int, tell: Callable[[str], None], stop: Callable[[], None]
) -> list[str]:
    """Wait for GPUs that nobody else uses, and let this process see no others.

    Args:
        number: of GPUs.
        jobs_per_gpu: how many jobs share one; with 1 each has its own.
        tell: is called with why it has to wait, whenever that changes.
        stop: is called while it waits; may raise.

    Returns:
        Their UUIDs, which CUDA_VISIBLE_DEVICES then names.

    Raises:
        JobError: there are not so many here.
    """
    begun, told = time.monotonic(), ""
    held: dict[str, list[IO[str]]] = {}
    first: IO[str] | None = None
    while True:
        stop()
        found = gpus.usable(gpus.available(), number)
        if len(found) < number:
            what = f"this job needs {number} GPUs, and {len(found)} can be used here"
            why = f"is one lost, hidden by {gpus.VISIBLE}, or divided (MIG)?"
            raise JobError(f"{what}; {why}", ExitCode.DEVICE)
        with _gate():
            refused = _add(held, found, number, jobs_per_gpu)
            if len(held) == number:
                break
            if first is None and time.monotonic() - begun > PATIENCE_SECONDS:
                first = _lock("first", fcntl.LOCK_EX)[0]
            if first is None:  # one at a time may keep some GPUs while it waits for others
                _give_back(held)
        words = "; ".join(f"{gpu}: {why}" for gpu, why in sorted(refused.items()))
        if words != told:
            tell(f"waiting for {number} of the GPUs here: {words}")
            told = words
        time.sleep(LOOK_SECONDS)
    if first:
        first.close()
    HELD.extend(lock for locks in held.values() for lock in locks)
    os.environ[gpus.VISIBLE] = ",".join(held)
    return list(held)


def take_cores(alone: bool, tell: Callable[[str], None], stop: Callable[[], None]) -> None:
    """Wait until no job needs all cores of this machine for itself, or, as one that does, for all.

    Args:
        alone: whether this job needs them so. Jobs that come while it waits let it go first.
        tell: is called with why it has to wait.
        stop: is called while it waits; may raise.

    Raises:
        JobError: there can be no locks here, and the job needs one.
    """
    kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    try:
        turn = _wait("cores.next", kind, tell, stop)
        HELD.append(_wait("cores", kind, tell, stop))
        turn.close()
    except OSError as error:
        if alone:
            what = f"{folder()}: no lock can be taken there ({error.strerror}), and timing: "
            raise JobError(
                f"{what}exclusive needs one: set {FOLDER}", ExitCode.PERMISSION
            ) from error


def _wait(name: str, kind: int, tell: Callable[[str], None], stop: Callable[[], None]) -> IO[str]:
    told = False
    while (found := _lock(name, kind))[0] is None:
        stop()
        if not told:
            tell(f"waiting for the cores of this machine: {found[1]}")
            told = True
        time.sleep(LOOK_SECONDS)
    return found[0]


def _add(
    held: dict[str, list[IO[str]]], found: list[Gpu], number: int, jobs_per_gpu: int
) -> dict[str, str]:
    """Take GPUs until there are enough; returns why the others could not be had.

    A place on each GPU comes before a second place on any.
    """
    refused: dict[str, str] = {}
    for place in range(jobs_per_gpu):
        for gpu in found:
            if len(held) == number:
                return refused
            if gpu.uuid not in held:
                locks, why = _try(gpu, place, jobs_per_gpu)
                if locks:
                    held[gpu.uuid] = locks
                else:
                    refused[gpu.uuid] = why
    return refused


def _try(gpu: Gpu, place: int, jobs_per_gpu: int) -> tuple[list[IO[str]], str]:
    """Locks on a GPU, or why there are none."""
    shared = jobs_per_gpu > 1
    wanted = [(gpu.uuid, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)]
    if shared:
        wanted.append((f"{gpu.uuid}.{place}", fcntl.LOCK_EX))
    locks: list[IO[str]] = []
    for name, kind in wanted:
        lock, why = _lock(name, kind)
        if lock is None:
            break
        locks.append(lock)
    else:
        why = _stranger(gpu, jobs_per_gpu)
    if why:
        _give_back({gpu.uuid: locks})
        return [], why
    return locks, ""


def _give_back(held: dict[str, list[IO[str]]]) -> None:
    for locks in held.values():
        for lock in locks:
            lock.close()
    held.clear()


def _stranger(gpu: Gpu, jobs_per_gpu: int) -> str:
    """Who uses a GPU without a lease, if anybody; asked by one who has a lock on it."""
    places = [f"{gpu.uuid}.{place}" for place in range(jobs_per_gpu)] if jobs_per_gpu > 1 else []
    holders = {_holder(place) for place in places} - {os.getpid(), None}
    ours = holders | {os.getpid()}
    foreign = [pid for pid in gpu.processes if supervision.is_foreign(pid, ours)]
    if foreign:
        return f"used by process {foreign[0]}, which has no lease"
    if gpu.used_bytes > FOREIGN_BYTES and not (holders or gpu.draws):
        return f"{gpu.used_bytes / 1e9:.1f} GB of its memory are used by a process unknown here"
    return ""


def _lock(name: str, kind: int) -> tuple[IO[str] | None, str]:
    """A lock on a file of the folder, or who has it."""
    file = _open(name)
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        with file:
            return None, f"leased to {file.read().strip() or 'other jobs'}"
    if not is_at(file, folder() / f"{name}.lock"):  # somebody has tidied up
        file.close()
        return _lock(name, kind)
    if file.writable():
        file.truncate(0)
        if kind == fcntl.LOCK_EX:
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
    return file, ""


@contextmanager
def _gate() -> Iterator[None]:
    """Let one process at a time look and take, so that none takes half of what another does."""
    with _open("gate") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _open(name: str) -> IO[str]:
    """A file to lock, made by whoever comes first; another user's can be locked, not written."""
    path = folder() / f"{name}.lock"
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666))
        path.chmod(0o666)  # whatever the umask
    try:
        return os.fdopen(os.open(path, os.O_RDWR | os.O_NOFOLLOW), "r+")
    except PermissionError:
        return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW))


def folder() -> Path:
    """Where the locks are: on this machine, and the same for all of its users."""
    found = Path(os.environ.get(FOLDER) or DEFAULT_FOLDER)
    with suppress(FileExistsError):
        found.mkdir(parents=True)
        found.chmod(0o1777)
    return found


def _holder(name: str) -> int | None:
    """The process that holds a place on a GPU; None where nobody does."""
    with _open(name) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        except BlockingIOError:
            words = file.read().split()
            return int(words[1]) if len(words) > 1 else None
