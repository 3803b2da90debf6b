"""Supervision of a running job: signals, the end of its workflow, and the length of attempts."""

import ctypes
import json
import math
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

from assay.runs.errors import ExitCode, JobError

PARENT = "ASSAY_PARENT"  # the process that started this job, as written by `mark`
WORKFLOW = "ASSAY_WORKFLOW"  # the process that planned it, perhaps on another machine
GRACE_SECONDS = 30.0
POLL_SECONDS = 0.3
ATTEMPTS = "attempts.json"
PR_SET_PDEATHSIG = 1  # of Linux


def mark(pid: int) -> str:
    """Return text that identifies a process for all time: its id and start time."""
    return f"{pid}:{_start_ticks(pid)}"


def is_alive(marked: str) -> bool:
    """Return whether the process of a mark is still running."""
    pid, _, started = marked.partition(":")
    return _start_ticks(int(pid)) == started


def workflow_pid() -> int | None:
    """Return the process that started this job's workflow; None if it was started by hand."""
    marked = os.environ.get(PARENT)
    return int(marked.partition(":")[0]) if marked and is_alive(marked) else None


def end_with(parent: int) -> None:
    """Make this process end as soon as its parent does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def is_remote() -> bool:
    """Return whether the workflow was planned on another machine or submits to a cluster."""
    return os.environ.get(WORKFLOW, "") not in ("", os.environ.get(PARENT))


def ancestors(pid: int) -> set[int]:
    """Return a process and its ancestors."""
    pids: set[int] = set()
    while pid > 0 and pid not in pids:
        pids.add(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            break
    return pids


def is_foreign(pid: int, ours: set[int]) -> bool:
    """Return whether a process exists here, and is neither one of ours nor a descendant of one."""
    return Path(f"/proc/{pid}").exists() and not ancestors(pid) & ours


class Supervision:
    """Turns a signal, or the end of the workflow, into a stop that loses no work.

    Attributes:
        reason: why the job has to stop; None while it may continue.
        attempts: seconds that each process has spent on this run so far, this process last.
        deferred: whether the job itself calls `check` between its steps; otherwise it is
            interrupted at once.
    """

    reason: str | None = None
    deferred = False

    def __init__(self, folder: Path, started: float) -> None:
        """Prepare to supervise this process.

        Args:
            folder: where the length of each attempt is kept.
            started: when this process began, on the clock of `time.perf_counter`.
        """
        self.started = started
        self.path = folder / ATTEMPTS
        self.attempts = [*_read_attempts(self.path), 0.0]
        self.parent = os.environ.get(PARENT) or None

    def start(self) -> None:
        """Handle signals, and watch the workflow from a thread."""
        self.write_attempts()
        self.handle_signals()
        threading.Thread(target=self._watch, daemon=True).start()

    def handle_signals(self) -> None:
        """Install handlers of SIGTERM and SIGINT in place of any others."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def check(self) -> None:
        """Stop here if the job has to stop.

        Raises:
            JobError: it has to.
        """
        if self.reason:
            raise JobError(f"stopped: {self.reason}; snakemake resumes it", ExitCode.STOPPED)

    @property
    def seconds(self) -> float:
        """How long this process has been running."""
        return time.perf_counter() - self.started

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.reason = f"received {signal.Signals(number).name}"
        if not self.deferred:
            self.check()

    def _watch(self) -> None:
        while self.parent is None or is_alive(self.parent):
            time.sleep(POLL_SECONDS)
            if self.seconds - self.attempts[-1] > 1:
                self.write_attempts()
        self.reason = "its snakemake has ended"
        if self.deferred:
            time.sleep(GRACE_SECONDS)
        os._exit(ExitCode.STOPPED)

    def write_attempts(self) -> None:
        """Write how long this attempt has lasted, for the ledger of the next one."""
        self.attempts[-1] = self.seconds
        new = self.path.with_suffix(".tmp")
        with suppress(OSError):  # a full disk stops the job with a message when it writes results
            new.write_text(json.dumps(self.attempts))
            new.replace(self.path)


class NoSupervision(Supervision):
    """Supervision of a worker process, which its main process ends."""

    def __init__(self) -> None:
        """Prepare nothing."""

    def handle_signals(self) -> None:
        """Leave signals as they are."""

    def write_attempts(self) -> None:
        """Write nothing."""


def _start_ticks(pid: int) -> str:
    """Return when a process started, in clock ticks since boot; empty if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _read_attempts(path: Path) -> list[float]:
    try:
        seconds = [float(value) for value in json.loads(path.read_text())]
        return [value for value in seconds if math.isfinite(value) and value >= 0]
    except (OSError, ValueError, TypeError):
        return []
