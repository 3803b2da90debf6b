"""Telemetry of a run: energy, memory, CPU time, and interference by foreign processes."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from assay.devices import energy, gpus
from assay.devices.energy import POLL_SECONDS, Unavailable
from assay.runs import environment, supervision

THROTTLED = {  # NVML's reasons for clocks below what the load asks for
    0x08: "slowed down by its hardware",
    0x20: "hot",
    0x40: "hot",
    0x80: "short of power",
}


class Meter:
    """Measures a run, over all processes that it takes if it is interrupted.

    Attributes:
        counts: sums by name, in seconds and joules.
        seen: interference that was seen at least once, such as a foreign process.
        missing: why there is no energy; None if there is.
        notes: values that were measured once, by name.
        peaks: functions that return the largest value so far, such as of memory, by name.
    """

    def __init__(self, gpus: list[str] | None = None, shared: bool = False) -> None:
        """Prepare to measure.

        Args:
            gpus: UUIDs of the run's GPUs.
            shared: whether other jobs may use the same device.
        """
        self.gpus = gpus or []
        self.counts: dict[str, float] = {}
        self.seen: set[str] = set()
        self.missing: str | None = None
        self.notes: dict[str, float] = {}
        self.peaks: dict[str, Callable[[], float]] = {
            "peak_memory_bytes": environment.peak_memory_bytes,
            "peak_load": self._highest_load,
        }
        self._shared = shared
        self._load = 0.0
        self._earlier: dict[str, float] = {}
        self._energy: list[energy.Counter] = []
        self._last: dict[str, float] | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Measure during a block."""
        self._energy, missing = energy.counters(self.gpus, self._shared)
        if self.missing or missing or (self.counts and "joules" not in self.counts):
            self._lose_energy(self.missing or missing or "it was not measured from the beginning")
        self._last = self._read()
        ended = threading.Event()
        poll = threading.Thread(target=self._poll, args=(ended,), daemon=True)
        poll.start()
        try:
            yield
        finally:
            self._count()
            self._last = None
            ended.set()
            poll.join()

    def resume(self, saved: dict[str, Any]) -> None:
        """Continue from the `total` of earlier processes at the time of their last checkpoint."""
        self.counts, self.missing = dict(saved["counts"]), saved["missing"]
        self.seen |= set(saved["seen"])
        self._earlier = {name: saved[name] for name in saved if name.startswith("peak_")}

    def total(self) -> dict[str, Any]:
        """Return `counts`, `seen`, `missing`, and the values of `peaks` and `notes` by name."""
        if self._last is not None:
            self._count()
        return {
            "counts": {name: round(value, 6) for name, value in self.counts.items()},
            "seen": sorted(self.seen),
            "missing": self.missing,
            **{name: max(now(), self._earlier.get(name, 0)) for name, now in self.peaks.items()},
            **self.notes,
        }

    def _highest_load(self) -> float:
        """Return the highest load average over a minute so far."""
        with suppress(OSError):
            self._load = max(self._load, round(os.getloadavg()[0], 2))
        return self._load

    def _count(self) -> None:
        before, self._last = self._last, self._read()
        for name, value in self._last.items():
            if name in before and value < before[name] and name == "joules":
                self._lose_energy("the energy counter was reset during the run")
            elif name in before:  # a thread that ends takes its waiting time with it
                spent = max(0.0, value - before[name])
                self.counts[name] = self.counts.get(name, 0.0) + spent

    def _read(self) -> dict[str, float]:
        readings = {"seconds": time.perf_counter(), **_processor()}
        for counter in self._energy:
            try:
                readings["joules"] = readings.get("joules", 0.0) + counter.read()
            except Unavailable as error:
                self._lose_energy(str(error))
                readings.pop("joules", None)
                break
        return readings

    def _lose_energy(self, why: str) -> None:
        self.missing, self._energy = why, []
        self.counts.pop("joules", None)

    def _poll(self, ended: threading.Event) -> None:
        wait = min((counter.poll_seconds for counter in self._energy), default=POLL_SECONDS)
        while True:
            for counter in self._energy:
                with suppress(Unavailable):
                    counter.read()
            self._highest_load()
            for uuid in self.gpus:
                self.seen |= _interference(uuid)
            if ended.wait(wait):
                return


def _interference(uuid: str) -> set[str]:
    """Return what slows down work on a GPU now."""
    import pynvml

    try:
        handle = gpus.handle(uuid)
        reasons = pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
    except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_InvalidArgument):
        reasons = 0
    except pynvml.NVMLError:
        return {"the GPU did not answer"}
    throttled = {f"GPU {words}" for bit, words in THROTTLED.items() if reasons & bit}
    foreign = any(supervision.is_foreign(pid, {os.getpid()}) for pid in gpus.processes(handle))
    return throttled | ({"another process on the GPU"} if foreign else set())


def _processor() -> dict[str, float]:
    """Return how the cores of this process's affinity have spent their time so far, in seconds."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
        ours = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        cores = [line.split()[1:9] for line in lines if line.split(maxsplit=1)[0] in ours]
        counted = [sum(map(int, column)) for column in zip(*cores, strict=True)]
        user, nice, system, _, _, irq, softirq, stolen = counted
    except (OSError, ValueError, AttributeError):
        return {}
    tick = os.sysconf("SC_CLK_TCK")
    root = supervision.workflow_pid() or os.getpid()
    return {
        "busy_seconds": (user + nice + system + irq + softirq) / tick,
        "workflow_seconds": _ticks_below(root) / tick,
        "core_seconds": sum(counted) / tick,
        "stolen_seconds": stolen / tick,
        "waited_seconds": sum(_waited(task) for task in Path("/proc/self/task").iterdir()) / 1e9,
        **_pressure(),
    }


def _pressure() -> dict[str, float]:
    """Return the seconds in which any task waited for a core; empty without kernel support."""
    try:
        some = Path("/proc/pressure/cpu").read_text().splitlines()[0]
    except (OSError, IndexError):
        return {}
    return {"pressure_seconds": int(some.rpartition("total=")[2]) / 1e6}


def _waited(task: Path) -> int:
    """Return the nanoseconds that a thread has waited for a core; 0 if it has ended."""
    try:
        return int((task / "schedstat").read_text().split()[1])
    except (OSError, IndexError):
        return 0


def _ticks_below(root: int) -> int:
    """Return the clock ticks used by a process and its descendants, including ended ones."""
    spent: dict[int, int] = {}
    below: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        pid = int(path.parent.name)
        below.setdefault(int(fields[1]), []).append(pid)
        spent[pid] = sum(int(field) for field in fields[11:15])
    ticks, queue = 0, [root]
    while queue:
        pid = queue.pop()
        ticks += spent.get(pid, 0)
        queue += below.get(pid, [])
    return ticks
