"""What watches over a running job: signals, the life of its workflow, and how long it has run."""

import ctypes
import json
import math
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from assay.runs.errors import ExitCode, JobError

PARENT = "ASSAY_PARENT"  # the process that started this job, as `mark` writes it
WORKFLOW = "ASSAY_WORKFLOW"  # the one that planned it, perhaps on another machine
GRACE_SECONDS = 30.0
LOOK_SECONDS = 0.3
ATTEMPTS = "attempts.json"
PR_SET_PDEATHSIG = 1  # of Linux


def mark(pid: int) -> str:
    """A process as text that no later process can have: its number and its start."""
    return f"{pid}:{_started(pid)}"


def is_alive(marked: str) -> bool:
    """Whether a process that was marked still runs."""
    pid, _, started = marked.partition(":")
    return _started(int(pid)) == started


def workflow() -> int | None:
    """The process that started this job's workflow; None where it was started by hand."""
    marked = os.environ.get(PARENT)
    return int(marked.partition(":")[0]) if marked and is_alive(marked) else None


def end_with(parent: int) -> None:
    """End as soon as the process that this one was forked from ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def is_elsewhere() -> bool:
    """Whether the workflow was planned on another machine, or this job is one of a cluster's."""
    return os.environ.get(WORKFLOW, "") not in ("", os.environ.get(PARENT))


def ancestors(pid: int) -> set[int]:
    """A process and those that started it."""
    found: set[int] = set()
    while pid > 0 and pid not in found:
        found.add(pid)
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            break
    return found


def is_foreign(pid: int, holders: set[int]) -> bool:
    """Whether a process that can be seen from here is none of some others, nor below one."""
    return Path(f"/proc/{pid}").exists() and not ancestors(pid) & holders


class Supervision:
    """Turns a signal, or the end of the workflow, into a stop that loses nothing.

    Attributes:
        reason: why the job has to stop; None while it need not.
        attempts: seconds that each process has spent on this run so far, this one's last.
    """

    def __init__(self, folder: Path, started: float) -> None:
        """Watch over this process.

        Args:
            folder: where the length of each attempt is kept.
            started: when this process began, on the clock of `time.perf_counter`.
        """
        self.reason: str | None = None
        self.started = started
        self.path = folder / ATTEMPTS
        self.attempts = [*_earlier(self.path), 0.0]
        self.parent = os.environ.get(PARENT) or None
        self._careful = False
        self.note()
        self.listen()
        threading.Thread(target=self._watch, daemon=True).start()

    def listen(self) -> None:
        """Take SIGTERM and SIGINT, in place of whoever took them before."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)

    def careful(self, careful: bool) -> None:
        """Whether the job itself looks at `reason` between its steps; else it is interrupted."""
        self._careful = careful

    def check(self) -> None:
        """Stop here, if the job has to stop.

        Raises:
            JobError: it has to.
        """
        if self.reason:
            raise JobError(
                f"stopped: {self.reason}; snakemake goes on from there", ExitCode.STOPPED
            )

    @property
    def seconds(self) -> float:
        """How long this process has run."""
        return time.perf_counter() - self.started

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self.reason = f"it got {signal.Signals(number).name}"
        if not self._careful:
            self.check()

    def _watch(self) -> None:
        while self.parent is None or is_alive(self.parent):
            time.sleep(LOOK_SECONDS)
            if self.seconds - self.attempts[-1] > 1:
                self.note()
        self.reason = "the snakemake that started it has ended"
        if self._careful:
            time.sleep(GRACE_SECONDS)
        os._exit(ExitCode.STOPPED)

    def note(self) -> None:
        """Keep how long this attempt has lasted, for the ledger of its successor."""
        self.attempts[-1] = self.seconds
        fresh = self.path.with_suffix(".tmp")
        try:
            fresh.write_text(json.dumps(self.attempts))
            fresh.replace(self.path)
        except OSError:
            pass  # a full disk stops the job where it writes results, and says so there


class Unwatched(Supervision):
    """That of a process which another one ends."""

    def __init__(self) -> None:
        self.reason = None

    def listen(self) -> None:
        pass

    def careful(self, careful: bool) -> None:
        pass

    def note(self) -> None:
        pass


def _started(pid: int) -> str:
    """When a process began, in the kernel's own count; empty where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _earlier(path: Path) -> list[float]:
    try:
        found = [float(seconds) for seconds in json.loads(path.read_text())]
        return [seconds for seconds in found if math.isfinite(seconds) and seconds >= 0]
    except (OSError, ValueError, TypeError):
        return []
