"""Leases: file locks that assign GPUs and CPU cores to jobs, and end with the job's process.

The locks are files in one folder per machine, named after the device, so that they count among all
processes and users. A job with a GPU of its own locks the GPU's file; jobs that share a GPU hold a
shared lock on that file, and a lock on one of the GPU's slots.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from assay.devices import gpus
from assay.devices.gpus import Gpu
from assay.runs import locks, supervision, units
from assay.runs.errors import ExitCode, JobError

FOLDER = "ASSAY_LEASES"  # environment variable with another folder than the default
DEFAULT_FOLDER = "/tmp/assay-leases"  # not in TMPDIR, which may differ from job to job
POLL_SECONDS = 0.1
PATIENCE_SECONDS = 30.0  # after which a job may keep some GPUs while it waits for others
FOREIGN_BYTES = 1 << 30  # more used memory than this on a GPU without a lease is a foreign process

HELD: list[IO[str]] = []  # locks of this process, until it ends
Held = dict[str, list[IO[str]]]  # UUID of a GPU -> the locks on it


def acquire_gpus(
    number: int, jobs_per_gpu: int, report: Callable[[str], None], check: Callable[[], None]
) -> list[str]:
    """Wait for free GPUs, lease them, and hide all others from this process.

    Args:
        number: of GPUs.
        jobs_per_gpu: number of jobs that share a GPU; with 1 each job has its own.
        report: is called with the reason for waiting, whenever it changes.
        check: is called while waiting; may raise.

    Returns:
        Their UUIDs, to which CUDA_VISIBLE_DEVICES is set.

    Raises:
        JobError: there are not enough GPUs.
    """
    began, reported = time.monotonic(), ""
    held: Held = {}
    priority: IO[str] | None = None
    while True:
        check()
        candidates = _candidates(number)
        with _gate():
            refused = _lease(held, candidates, number, jobs_per_gpu)
            if len(held) == number:
                break
            if priority is None and time.monotonic() - began > PATIENCE_SECONDS:
                priority = _lock("priority")
            if priority is None:  # only one job may keep GPUs while it waits: no deadlock
                _release(held)
        reasons = "; ".join(f"{gpu}: {why}" for gpu, why in sorted(refused.items()))
        if reasons != reported:
            report(f"waiting for {number} of the GPUs here: {reasons}")
            reported = reasons
        time.sleep(POLL_SECONDS)
    if priority:
        priority.close()
    HELD.extend(lock for each in held.values() for lock in each)
    os.environ[gpus.VISIBLE] = ",".join(held)
    return list(held)


def acquire_cores(
    exclusive: bool, report: Callable[[str], None], check: Callable[[], None]
) -> None:
    """Wait until no other job has all cores of this machine, or, if exclusive, has any.

    Args:
        exclusive: whether this job needs all cores. Later jobs wait until it has had them.
        report: is called with the reason for waiting.
        check: is called while waiting; may raise.

    Raises:
        JobError: locks are impossible here, and the job needs one.
    """
    try:
        turn = _wait("cores.next", exclusive, report, check)
        HELD.append(_wait("cores", exclusive, report, check))
        turn.close()
    except OSError as error:
        if exclusive:
            what = f"{folder()}: no lock can be taken there ({error.strerror}), but timing: "
            raise JobError(
                f"{what}exclusive needs one: set {FOLDER}", ExitCode.PERMISSION
            ) from error


def folder() -> Path:
    """Return the folder of the locks, which all users of this machine share; it is created."""
    path = Path(os.environ.get(FOLDER) or DEFAULT_FOLDER)
    with suppress(FileExistsError):
        path.mkdir(parents=True)
        path.chmod(0o1777)
    return path


def _candidates(number: int) -> list[Gpu]:
    candidates = gpus.usable(gpus.available(), number)
    if len(candidates) < number:
        what = f"this job needs {number} GPUs, and {len(candidates)} can be used here"
        why = f"is one lost, hidden by {gpus.VISIBLE}, or divided (MIG)?"
        raise JobError(f"{what}; {why}", ExitCode.DEVICE)
    return candidates


def _lease(held: Held, candidates: list[Gpu], number: int, jobs_per_gpu: int) -> dict[str, str]:
    """Lease GPUs until there are enough; return why the others were refused.

    A first slot on any GPU comes before a second slot on one.
    """
    refused: dict[str, str] = {}
    for slot in range(jobs_per_gpu):
        for gpu in candidates:
            if len(held) == number:
                return refused
            if gpu.uuid not in held and (why := _lease_one(held, gpu, slot, jobs_per_gpu)):
                refused[gpu.uuid] = why
    return refused


def _lease_one(held: Held, gpu: Gpu, slot: int, jobs_per_gpu: int) -> str:
    """Lease a GPU; return why this is impossible, if so."""
    shared = jobs_per_gpu > 1
    held[gpu.uuid] = acquired = []
    for name in [gpu.uuid, *([f"{gpu.uuid}.{slot}"] if shared else [])]:
        lock = _lock(name, shared=shared and name == gpu.uuid)
        if lock is None:
            why = _leased_to(name)
            break
        acquired.append(lock)
    else:
        why = _foreign_use(gpu, jobs_per_gpu)
    if why:
        _release({gpu.uuid: held.pop(gpu.uuid)})
    return why


def _foreign_use(gpu: Gpu, jobs_per_gpu: int) -> str:
    """Return who uses a GPU without a lease, if anybody; this process has a lock on it."""
    slots = [_path(f"{gpu.uuid}.{slot}") for slot in range(jobs_per_gpu if jobs_per_gpu > 1 else 0)]
    holders = {holder.pid for slot in slots if (holder := locks.holder(slot))} - {os.getpid()}
    ours = {pid for pid in holders if pid} | {os.getpid()}
    foreign = [pid for pid in gpu.processes if supervision.is_foreign(pid, ours)]
    if foreign:
        return f"used by process {foreign[0]}, which has no lease"
    if gpu.used_bytes > FOREIGN_BYTES and not (holders or gpu.has_display):
        return f"{units.size(gpu.used_bytes)} of its memory are used by an unknown process"
    return ""


def _release(held: Held) -> None:
    for each in held.values():
        for lock in each:
            lock.close()
    held.clear()


def _gate() -> IO[str]:
    """Let one process at a time lease GPUs, so that no two jobs take half of what both need."""
    gate = _lock("gate", wait=True)
    assert gate
    return gate


def _wait(
    name: str, exclusive: bool, report: Callable[[str], None], check: Callable[[], None]
) -> IO[str]:
    reported = False
    while (lock := _lock(name, shared=not exclusive)) is None:
        check()
        if not reported:
            report(f"waiting for the cores of this machine: {_leased_to(name)}")
            reported = True
        time.sleep(POLL_SECONDS)
    return lock


def _leased_to(name: str) -> str:
    return f"leased to {locks.holder(_path(name)) or locks.Holder()}"


def _lock(name: str, shared: bool = False, wait: bool = False) -> IO[str] | None:
    return locks.acquire(_path(name), shared, wait, all_users=True)


def _path(name: str) -> Path:
    return folder() / f"{name}.lock"
