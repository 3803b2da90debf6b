"""Energy: joules since some time in the past, by whatever tells it on a machine.

A counter's `read` gives them; it has to be called every `look_seconds` at least.
"""

import threading
import time
from pathlib import Path
from typing import Any

from assay.devices import gpus
from assay.devices.gpus import is_part

LOOK_SECONDS = 1.0
LOOK_SECONDS_FOR_POWER = 0.1  # where energy is the sum of power over time
RAPL = Path("/sys/class/powercap")


class Unreadable(Exception):
    """A counter of energy gives no number; the text says why."""


class Board:
    """A GPU's own counter, of the whole board."""

    look_seconds = LOOK_SECONDS

    def __init__(self, uuid: str) -> None:
        self.handle = _asked(gpus.handle, uuid)
        self.read()

    def read(self) -> float:
        import pynvml

        return _asked(pynvml.nvmlDeviceGetTotalEnergyConsumption, self.handle) / 1000


class Power:
    """The power of a GPU's board, summed over time: for those older than the counter."""

    look_seconds = LOOK_SECONDS_FOR_POWER

    def __init__(self, uuid: str) -> None:
        self.handle = _asked(gpus.handle, uuid)
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


class Package:
    """A processor's own counter (RAPL), of all its cores, which starts again at some number."""

    look_seconds = LOOK_SECONDS

    def __init__(self, folder: Path) -> None:
        self.folder, self.joules, self.lock = folder, 0.0, threading.Lock()
        self.range = self._number("max_energy_range_uj")
        self.last = self._number("energy_uj")

    def _number(self, name: str) -> int:
        try:
            return int((self.folder / name).read_text())
        except (OSError, ValueError) as error:
            raise Unreadable(f"{self.folder / name} cannot be read here: {error}") from error

    def read(self) -> float:
        with self.lock:
            now = self._number("energy_uj")
            self.joules += (now - self.last) % (self.range + 1) / 1e6
            self.last = now
            return self.joules


Counter = Board | Power | Package


def counters(gpus: list[str], divided: bool) -> tuple[list[Counter], str | None]:
    """What tells the energy of a run, or why nothing does.

    Args:
        gpus: UUIDs of those that the run has.
        divided: whether other jobs may use the same device or processor.
    """
    try:
        if any(map(is_part, gpus)):
            raise Unreadable("a part of a GPU (MIG) has no counter of its own")
        if divided:
            raise Unreadable("jobs side by side share one counter: see execution.timing")
        if gpus:
            return [_of_gpu(uuid) for uuid in gpus], None
        return _of_processors(), None
    except Unreadable as error:
        return [], str(error)


def _of_gpu(uuid: str) -> Counter:
    try:
        return Board(uuid)
    except Unreadable:
        return Power(uuid)


def _of_processors() -> list[Counter]:
    folders = [path.parent for path in sorted(RAPL.glob("intel-rapl:*/name"))]
    packages = [each for each in folders if (each / "name").read_text().startswith("package")]
    if not packages:
        raise Unreadable("this processor shows no counter of energy (RAPL)")
    return [Package(folder) for folder in packages]


def _asked(question: Any, handle: Any) -> Any:
    """NVML's answer.

    Raises:
        Unreadable: it has none.
    """
    import pynvml

    try:
        return question(handle)
    except pynvml.NVMLError as error:
        raise Unreadable(f"the GPU does not tell its energy: {error}") from error
