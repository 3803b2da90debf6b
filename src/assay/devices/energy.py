"""Energy counters of GPUs and processors, after the method of Zeus (https://ml.energy/zeus).

As in `zeus.monitor`, a GPU's energy is read from NVML's counter, or, on GPUs older than Volta, is
the integral of its power over time; a processor's energy is read from RAPL.
"""

import threading
import time
from pathlib import Path
from typing import Any

from assay.devices import gpus
from assay.devices.gpus import is_mig

POLL_SECONDS = 1.0
POLL_SECONDS_OF_POWER = 0.1
RAPL = Path("/sys/class/powercap")


class Unavailable(Exception):
    """There is no energy counter; the text says why."""


class GpuEnergy:
    """The energy counter of a GPU's board.

    Attributes:
        poll_seconds: the longest time between two calls of `read`, here and in the other counters.
    """

    poll_seconds = POLL_SECONDS

    def __init__(self, uuid: str) -> None:
        self.handle = _ask(gpus.handle, uuid)
        self.read()

    def read(self) -> float:
        """Return joules since some time in the past."""
        import pynvml

        return _ask(pynvml.nvmlDeviceGetTotalEnergyConsumption, self.handle) / 1000


class GpuPower:
    """The power of a GPU's board, integrated over time by the trapezoidal rule."""

    poll_seconds = POLL_SECONDS_OF_POWER

    def __init__(self, uuid: str) -> None:
        self.handle = _ask(gpus.handle, uuid)
        self.joules, self.lock = 0.0, threading.Lock()
        self.since, self.watts = time.perf_counter(), self._watts()

    def _watts(self) -> float:
        import pynvml

        return _ask(pynvml.nvmlDeviceGetPowerUsage, self.handle) / 1000

    def read(self) -> float:
        """Return joules since the start."""
        with self.lock:
            now, watts = time.perf_counter(), self._watts()
            self.joules += (now - self.since) * (watts + self.watts) / 2
            self.since, self.watts = now, watts
            return self.joules


class CpuPackage:
    """The energy counter of a processor package (RAPL), of all its cores, which wraps around."""

    poll_seconds = POLL_SECONDS

    def __init__(self, folder: Path) -> None:
        self.folder, self.joules, self.lock = folder, 0.0, threading.Lock()
        self.range = self._number("max_energy_range_uj")
        self.last = self._number("energy_uj")

    def _number(self, name: str) -> int:
        try:
            return int((self.folder / name).read_text())
        except (OSError, ValueError) as error:
            raise Unavailable(f"{self.folder / name} cannot be read: {error}") from error

    def read(self) -> float:
        """Return joules since the start."""
        with self.lock:
            now = self._number("energy_uj")
            self.joules += (now - self.last) % (self.range + 1) / 1e6
            self.last = now
            return self.joules


Counter = GpuEnergy | GpuPower | CpuPackage


def counters(gpus: list[str], shared: bool) -> tuple[list[Counter], str | None]:
    """Return the energy counters of a run, or why there are none.

    Args:
        gpus: UUIDs of the run's GPUs; without any it runs on the CPU.
        shared: whether other jobs may use the same device.
    """
    try:
        if any(map(is_mig, gpus)):
            raise Unavailable("a MIG instance has no energy counter of its own")
        if shared:
            raise Unavailable("jobs that run side by side share a counter: see execution.timing")
        return [_gpu(uuid) for uuid in gpus] if gpus else _cpu_packages(), None
    except Unavailable as error:
        return [], str(error)


def _gpu(uuid: str) -> Counter:
    try:
        return GpuEnergy(uuid)
    except Unavailable:
        return GpuPower(uuid)


def _cpu_packages() -> list[Counter]:
    folders = [path.parent for path in sorted(RAPL.glob("intel-rapl:*/name"))]
    packages = [each for each in folders if (each / "name").read_text().startswith("package")]
    if not packages:
        raise Unavailable("this processor has no readable energy counter (RAPL)")
    return [CpuPackage(folder) for folder in packages]


def _ask(query: Any, handle: Any) -> Any:
    """Return NVML's answer.

    Raises:
        Unavailable: it has none.
    """
    import pynvml

    try:
        return query(handle)
    except pynvml.NVMLError as error:
        raise Unavailable(f"the GPU does not report its energy: {error}") from error
