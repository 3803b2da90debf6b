"""What a run takes besides time, and what disturbs it."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from assay.devices import energy, gpus
from assay.devices.energy import LOOK_SECONDS, Unreadable
from assay.runs import environment, supervision

THROTTLED = {  # reasons of NVML for which a GPU runs slower than its load asks for
    0x08: "slowed down by its hardware",
    0x20: "hot",
    0x40: "hot",
    0x80: "short of power",
}


class Meter:
    """Counts while it runs, over all processes that work on a run one after the other.

    Attributes:
        counts: sums by name, in seconds and joules.
        seen: what was seen at least once, such as a stranger's process.
        missing: why there is no energy; None where there is.
        notes: whatever else was measured once, by name.
        peaks: what tells the most that there was of something, such as memory, by name.
    """

    def __init__(self, gpus: list[str] | None = None, divided: bool = False) -> None:
        """Prepare to count.

        Args:
            gpus: UUIDs of those that the run has.
            divided: whether other jobs may use the same device or processor.
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
        self._divided = divided
        self._load = 0.0
        self._earlier: dict[str, float] = {}
        self._energy: list[energy.Counter] = []
        self._last: dict[str, float] | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count during a block."""
        self._energy, missing = energy.counters(self.gpus, self._divided)
        if self.missing or missing or (self.counts and "joules" not in self.counts):
            self._lose_energy(self.missing or missing or "it was not measured from the beginning")
        self._last = self._read()
        ended = threading.Event()
        watch = threading.Thread(target=self._watch, args=(ended,), daemon=True)
        watch.start()
        try:
            yield
        finally:
            self._count()
            self._last = None
            ended.set()
            watch.join()

    def resume(self, kept: dict[str, Any]) -> None:
        """Go on from what earlier processes had counted when they saved their work."""
        self.counts, self.missing = dict(kept["counts"]), kept["missing"]
        self.seen |= set(kept["seen"])
        self._earlier = {name: kept[name] for name in kept if name.startswith("peak_")}

    def total(self) -> dict[str, Any]:
        """All so far: `counts`, `seen`, why there is no energy (`missing`), `peaks` and `notes`."""
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
        """The machine's load over a minute, as the system averages it, where it was highest."""
        with suppress(OSError):
            self._load = max(self._load, round(os.getloadavg()[0], 2))
        return self._load

    def _count(self) -> None:
        before, self._last = self._last, self._read()
        for name, value in self._last.items():
            if name in before and value < before[name] and name == "joules":
                self._lose_energy("the counter of energy was reset while the run went on")
            elif name in before:  # a thread that ends takes its share of the waiting along
                spent = max(0.0, value - before[name])
                self.counts[name] = self.counts.get(name, 0.0) + spent

    def _read(self) -> dict[str, float]:
        readings = {"seconds": time.perf_counter(), **_processor()}
        for counter in self._energy:
            try:
                readings["joules"] = readings.get("joules", 0.0) + counter.read()
            except Unreadable as error:
                self._lose_energy(str(error))
                readings.pop("joules", None)
                break
        return readings

    def _lose_energy(self, why: str) -> None:
        self.missing, self._energy = why, []
        self.counts.pop("joules", None)

    def _watch(self, ended: threading.Event) -> None:
        wait = min((counter.look_seconds for counter in self._energy), default=LOOK_SECONDS)
        while True:
            for counter in self._energy:
                with suppress(Unreadable):
                    counter.read()
            self._highest_load()
            for uuid in self.gpus:
                self.seen |= _company(uuid)
            if ended.wait(wait):
                return


def _company(uuid: str) -> set[str]:
    """What disturbs work on a GPU now, in words."""
    import pynvml

    try:
        handle = gpus.handle(uuid)
        reasons = pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
    except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_InvalidArgument):
        reasons = 0
    except pynvml.NVMLError:
        return {"the GPU did not answer"}
    found = {f"GPU {words}" for bit, words in THROTTLED.items() if reasons & bit}
    computing = gpus.processes(handle)
    strange = any(supervision.is_foreign(pid, {os.getpid()}) for pid in computing)
    return found | ({"another process on the GPU"} if strange else set())


def _processor() -> dict[str, float]:
    """Seconds that the cores that this process may use have spent so far, and on whom."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
        ours = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        cores = [line.split()[1:9] for line in lines if line.split(maxsplit=1)[0] in ours]
        counted = [sum(map(int, column)) for column in zip(*cores, strict=True)]
        user, nice, system, _, _, irq, softirq, stolen = counted
    except (OSError, ValueError, AttributeError):
        return {}
    tick = os.sysconf("SC_CLK_TCK")
    root = supervision.workflow() or os.getpid()
    return {
        "busy_seconds": (user + nice + system + irq + softirq) / tick,
        "workflow_seconds": _ticks_below(root) / tick,
        "core_seconds": sum(counted) / tick,
        "stolen_seconds": stolen / tick,
        "waited_seconds": sum(_waited(task) for task in Path("/proc/self/task").iterdir()) / 1e9,
        **_pressure(),
    }


def _pressure() -> dict[str, float]:
    """Seconds in which any task here waited for a core; none where the system does not tell."""
    try:
        some = Path("/proc/pressure/cpu").read_text().splitlines()[0]
    except (OSError, IndexError):
        return {}
    return {"pressure_seconds": int(some.rpartition("total=")[2]) / 1e6}


def _waited(task: Path) -> int:
    """Nanoseconds that a thread has waited for a core; none where it has ended by now."""
    try:
        return int((task / "schedstat").read_text().split()[1])
    except (OSError, IndexError):
        return 0


def _ticks_below(root: int) -> int:
    """The ticks of the clock that a process and all below it have spent, ended ones included."""
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
