"""What a run takes besides time, and what disturbs it: energy, memory of the GPU, company."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from assay import devices, supervision

LOOK_SECONDS = 1.0
LOOK_SECONDS_FOR_POWER = 0.1  # where energy is the sum of power over time
RAPL = Path("/sys/class/powercap")
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
        self._divided = divided
        self._energy: list[_Counter] = []
        self._last: dict[str, float] | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count during a block."""
        self._energy, missing = _energy(self.gpus, self._divided)
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

    def total(self) -> dict[str, Any]:
        """All so far: `counts`, `seen`, why there is no energy (`missing`), and `notes`."""
        if self._last is not None:
            self._count()
        return {
            "counts": {name: round(value, 6) for name, value in self.counts.items()},
            "seen": sorted(self.seen),
            "missing": self.missing,
            **self.notes,
        }

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
            except _Unreadable as error:
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
                counter.look()
            for uuid in self.gpus:
                self.seen |= _company(uuid)
            if ended.wait(wait):
                return


class _Unreadable(Exception):
    """A counter of energy gives no number; the text says why."""


class _Counter:
    """Joules since some time in the past."""

    look_seconds = LOOK_SECONDS

    def read(self) -> float:
        raise NotImplementedError

    def look(self) -> None:
        """What has to be done now and then in between."""


class _Board(_Counter):
    """A GPU's own counter, of the whole board."""

    def __init__(self, uuid: str) -> None:
        self.handle = _asked(devices.handle, uuid)
        self.read()

    def read(self) -> float:
        import pynvml

        return _asked(pynvml.nvmlDeviceGetTotalEnergyConsumption, self.handle) / 1000


class _Power(_Counter):
    """The power of a GPU's board, summed over time: for those older than the counter."""

    look_seconds = LOOK_SECONDS_FOR_POWER

    def __init__(self, uuid: str) -> None:
        self.handle = _asked(devices.handle, uuid)
        self.joules, self.lock = 0.0, threading.Lock()
        self.at, self.watts = time.perf_counter(), self._watts()

    def _watts(self) -> float:
        import pynvml

        return _asked(pynvml.nvmlDeviceGetPowerUsage, self.handle) / 1000

    def read(self) -> float:
        with self.lock:
            now, watts = time.perf_counter(), self._watts()
            self.joules += (now - self.at) * (watts + self.watts) / 2
            self.at, self.watts = now, watts
            return self.joules

    def look(self) -> None:
        with suppress(_Unreadable):
            self.read()


class _Package(_Counter):
    """A processor's own counter (RAPL), of all its cores, which starts again at some number."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.joules, self.lock = folder, 0.0, threading.Lock()
        self.range = self._number("max_energy_range_uj")
        self.last = self._number("energy_uj")

    def _number(self, name: str) -> int:
        try:
            return int((self.folder / name).read_text())
        except (OSError, ValueError) as error:
            raise _Unreadable(f"{self.folder / name} cannot be read here: {error}") from error

    def read(self) -> float:
        with self.lock:
            now = self._number("energy_uj")
            self.joules += (now - self.last) % (self.range + 1) / 1e6
            self.last = now
            return self.joules

    def look(self) -> None:
        with suppress(_Unreadable):
            self.read()


def _energy(gpus: list[str], divided: bool) -> tuple[list[_Counter], str | None]:
    """What tells the energy of a run, or why nothing does."""
    try:
        if any(uuid.startswith("MIG-") for uuid in gpus):
            raise _Unreadable("a part of a GPU (MIG) has no counter of its own")
        if divided:
            raise _Unreadable("jobs side by side share one counter: see execution.timing")
        if gpus:
            return [_of_gpu(uuid) for uuid in gpus], None
        return _of_processors(), None
    except _Unreadable as error:
        return [], str(error)


def _of_gpu(uuid: str) -> _Counter:
    try:
        return _Board(uuid)
    except _Unreadable:
        return _Power(uuid)


def _of_processors() -> list[_Counter]:
    folders = [path.parent for path in sorted(RAPL.glob("intel-rapl:*/name"))]
    packages = [each for each in folders if (each / "name").read_text().startswith("package")]
    if not packages:
        raise _Unreadable("this processor shows no counter of energy (RAPL)")
    return [_Package(folder) for folder in packages]


def _asked(question: Any, handle: Any) -> Any:
    """NVML's answer.

    Raises:
        _Unreadable: it has none.
    """
    import pynvml

    try:
        return question(handle)
    except pynvml.NVMLError as error:
        raise _Unreadable(f"the GPU does not tell its energy: {error}") from error


def _company(uuid: str) -> set[str]:
    """What disturbs work on a GPU now, in words."""
    import pynvml

    try:
        handle = devices.handle(uuid)
        reasons = pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
    except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_InvalidArgument):
        reasons = 0
    except pynvml.NVMLError:
        return {"the GPU did not answer"}
    found = {f"GPU {words}" for bit, words in THROTTLED.items() if reasons & bit}
    computing = devices.processes(handle)
    strange = any(supervision.is_foreign(pid, {os.getpid()}) for pid in computing)
    return found | ({"another process on the GPU"} if strange else set())


def _processor() -> dict[str, float]:
    """Seconds that cores of this machine have spent so far, and on whom."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        user, nice, system, _, _, irq, softirq, stolen = (int(field) for field in fields)
    except (OSError, ValueError):
        return {}
    tick = os.sysconf("SC_CLK_TCK")
    root = supervision.workflow() or os.getpid()
    return {
        "busy_seconds": (user + nice + system + irq + softirq) / tick,
        "workflow_seconds": sum(_descendants(root).values()) / tick,
        "stolen_seconds": stolen / tick,
        "waited_seconds": sum(_waited(task) for task in Path("/proc/self/task").iterdir()) / 1e9,
    }


def _waited(task: Path) -> int:
    """Nanoseconds that a thread has waited for a core; none where it has ended by now."""
    try:
        return int((task / "schedstat").read_text().split()[1])
    except (OSError, IndexError):
        return 0


def _descendants(root: int) -> dict[int, int]:
    """A process and all below it: the ticks that each has spent, its ended children included."""
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
    found, queue = {}, [root]
    while queue:
        pid = queue.pop()
        if pid in spent:
            found[pid] = spent[pid]
            queue += below.get(pid, [])
    return found
