"""GPUs that the real `nvidia-ml-py` finds in subprocesses, on a machine that may have none."""

import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_suffix(".c")
HIDDEN_BYTES = 2**64 - 1  # what NVML tells of memory that it cannot see
SENSORS = {
    "power_watts": 100, "energy_joules": 1000, "mfu_percent": 0, "temperature_celsius": 40,
    "graphics_clock_megahertz": 1500, "memory_clock_megahertz": 2000, "throttle_reasons": 0,
}  # fmt: skip


def build(folder: Path) -> None:
    """Compile the library into a folder, under the name that `pynvml` asks for."""
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, SOURCE], check=True)


@dataclass
class FakeGpu:
    """What NVML tells of a device or of a MIG instance; what is None it does not support."""

    uuid: str
    name: str = "NVIDIA Fake"
    pci_bus_id: str | None = None
    memory_total_bytes: int | None = 16 * 2**30
    memory_used_bytes: int | None = 0
    memory_reserved_bytes: int = 0
    power_watts: float | None = None
    energy_joules: float | None = None
    utilization_percent: int | None = None
    temperature_celsius: int | None = None
    graphics_clock_megahertz: int | None = None
    memory_clock_megahertz: int | None = None
    throttle_reasons: int | None = None
    compute_capability: float | None = 8.0
    mig: bool | None = None
    lost: bool = False
    processes: list[tuple[int, int | None]] = field(default_factory=list)
    graphics_processes: list[tuple[int, int | None]] = field(default_factory=list)
    instances: list["FakeGpu"] = field(default_factory=list)

    def divide(self, count: int) -> None:
        """Turn MIG on, with instances that share the memory and have no sensors."""
        self.mig, self.utilization_percent = True, None
        share_bytes = self.memory_total_bytes // count
        self.instances = [
            FakeGpu(f"MIG-{uuid.uuid4()}", f"{self.name} MIG", memory_total_bytes=share_bytes)
            for _ in range(count)
        ]

    def lines(self, kind: str) -> Iterator[str]:
        """The info as the library reads them, those of MIG instances last."""
        yield f"{kind} {self.uuid}"
        for key, value in vars(self).items():
            match key, value:
                case "uuid", _:
                    pass
                case "instances", instances:
                    for instance in instances:
                        yield from instance.lines("instance")
                case _, list(processes):
                    for pid, used_bytes in processes:
                        yield f"{key} {pid} {HIDDEN_BYTES if used_bytes is None else used_bytes}"
                case _, str():
                    yield f"{key} {value}"
                case _, int() | float():
                    yield f"{key} {float(value)}"


class FakeGpus(list[FakeGpu]):
    """The GPUs of a machine; subprocesses see what was last saved."""

    def __init__(self, library: Path, state: Path, *, count: int = 1, **settings: Any) -> None:
        self._library = library
        self._state = state
        self.saved_at_seconds = 0.0
        self._saved_watts: list[float] = []
        self.driver_version: str | None = "570.00"
        for index in range(count):
            place = {"uuid": f"GPU-{uuid.uuid4()}", "pci_bus_id": f"00000000:{index + 1:02X}:00.0"}
            self.append(FakeGpu(**(place | SENSORS | settings)))
        self.save()

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which a subprocess finds these GPUs."""
        folders = [str(self._library), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        return {"LD_LIBRARY_PATH": os.pathsep.join(folders), "FAKE_NVML": str(self._state)}

    def save(self) -> None:
        """Let running subprocesses see what was changed."""
        self._settle()
        lines = [f"saved_at_seconds {self.saved_at_seconds!r}"]
        lines += [f"driver_version {self.driver_version}"] if self.driver_version else []
        lines += [line for gpu in self for line in gpu.lines("device")]
        whole = self._state.with_suffix(".new")
        whole.write_text("\n".join(lines) + "\n")
        whole.replace(self._state)

    def _settle(self) -> None:
        """Add the energy that was drawn since the last save, at the power of then."""
        now = time.clock_gettime(time.CLOCK_MONOTONIC)
        for gpu, watts in zip(self, self._saved_watts, strict=False):
            if gpu.energy_joules is not None:
                gpu.energy_joules += watts * (now - self.saved_at_seconds)
        self.saved_at_seconds = now
        self._saved_watts = [gpu.power_watts or 0.0 for gpu in self]
