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
HIDDEN_BYTES = 2**64 - 1  # NVML's value for memory that it cannot see
SENSORS = {"power_watts": 100, "energy_joules": 1000, "throttle_reasons": 0}


def build(folder: Path) -> None:
    """Compile the library into a folder, under the name that `pynvml` loads."""
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, SOURCE], check=True)


@dataclass
class FakeGpu:
    """What NVML reports about a device or a MIG instance; it does not support what is None."""

    uuid: str
    name: str = "NVIDIA Fake"
    memory_total_bytes: int | None = 16 * 2**30
    memory_used_bytes: int | None = 0
    memory_reserved_bytes: int = 0
    power_watts: float | None = None
    energy_joules: float | None = None
    throttle_reasons: int | None = None
    mig: bool | None = None
    lost: bool = False
    processes: list[tuple[int, int | None]] = field(default_factory=list)
    graphics_processes: list[tuple[int, int | None]] = field(default_factory=list)
    instances: list["FakeGpu"] = field(default_factory=list)

    def divide(self, count: int) -> None:
        """Turn MIG on, with instances that share the memory and have no sensors."""
        self.mig = True
        share_bytes = self.memory_total_bytes // count
        self.instances = [
            FakeGpu(f"MIG-{uuid.uuid4()}", f"{self.name} MIG", memory_total_bytes=share_bytes)
            for _ in range(count)
        ]

    def lines(self, kind: str) -> Iterator[str]:
        """Yield the state as the library reads it, MIG instances last."""
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
    """The GPUs of a machine; subprocesses see the state of the last `save`."""

    def __init__(self, library: Path, state: Path, *, count: int = 1, **settings: Any) -> None:
        self._library = library
        self._state = state
        self.saved_at_seconds = 0.0
        self._saved_watts: list[float] = []
        self.driver_version: str | None = "570.00"
        self += [FakeGpu(f"GPU-{uuid.uuid4()}", **SENSORS | settings) for _ in range(count)]
        self.save()

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which a subprocess finds these GPUs."""
        folders = [str(self._library), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        return {"LD_LIBRARY_PATH": os.pathsep.join(folders), "FAKE_NVML": str(self._state)}

    def save(self) -> None:
        """Show the present state to running subprocesses."""
        self._add_energy()
        lines = [f"saved_at_seconds {self.saved_at_seconds!r}"]
        lines += [f"driver_version {self.driver_version}"] if self.driver_version else []
        lines += [line for gpu in self for line in gpu.lines("device")]
        new = self._state.with_suffix(".new")
        new.write_text("\n".join(lines) + "\n")
        new.replace(self._state)

    def _add_energy(self) -> None:
        """Add the energy used since the last save, at the power of that time."""
        now = time.clock_gettime(time.CLOCK_MONOTONIC)
        for gpu, watts in zip(self, self._saved_watts, strict=False):
            if gpu.energy_joules is not None:
                gpu.energy_joules += watts * (now - self.saved_at_seconds)
        self.saved_at_seconds = now
        self._saved_watts = [gpu.power_watts or 0.0 for gpu in self]
