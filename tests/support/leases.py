"""Jobs that lease GPUs or CPU cores, each a process that prints what it gets."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from support.checkout import PROJECT

LIMIT_SECONDS = 600  # for jobs that hang

GPU_JOB = """
import functools, os, sys, time
from pathlib import Path
from assay.devices import leases
from assay.runs import supervision
number, share, seconds, folder = *map(int, sys.argv[1:3]), sys.argv[3], Path(sys.argv[4])
held = leases.acquire_gpus(number, share, functools.partial(print, flush=True), lambda: None)
assert os.environ["CUDA_VISIBLE_DEVICES"] == ",".join(held)
others = [path for uuid in held for path in folder.glob(f"{uuid}.*")]
marks = [folder / f"{uuid}.{supervision.mark(os.getpid())}" for uuid in held]
for mark in marks:
    mark.touch()
print("has", *held, flush=True)
if seconds == "until killed":
    sys.stdin.read()
while any(path.exists() and supervision.is_alive(path.suffix[1:]) for path in others):
    time.sleep(0.01)  # it was killed, or still holds the GPU and will delete its mark
assert all(path.exists() for path in others), f"a GPU was held twice: {others}"
time.sleep(float(seconds))
for mark in marks:
    mark.unlink()
"""
CORES_JOB = """
import functools, os, sys
from assay.devices import leases
os.setuid(int(sys.argv[2]))
report = functools.partial(print, flush=True)
leases.acquire_cores(sys.argv[1] == "exclusive", report, lambda: None)
report("has the cores")
sys.stdin.read()
"""


class GpuJob(subprocess.Popen):
    """A job that leases GPUs and holds them for a while."""

    def __init__(self, gpus: Any, folder: Path, number: int = 1, share: int = 1,
                 seconds: float | str = "until killed", **environment: str) -> None:  # fmt: skip
        words = [str(number), str(share), str(seconds), str(folder)]
        super().__init__(
            [sys.executable, "-c", GPU_JOB, *words], env=around(folder, gpus, **environment),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def says(self) -> str:
        """Return the next line that it prints."""
        return self.stdout.readline().strip()

    def takes(self) -> list[str]:
        """Return the GPUs that it gets without waiting."""
        word, *held = self.says().split()
        assert word == "has"
        return held


class CoresJob(subprocess.Popen):
    """A job that leases the cores of the machine, exclusively or with others."""

    def __init__(self, folder: Path, kind: str, user: int | None = None) -> None:
        words = [kind, str(os.getuid() if user is None else user)]
        super().__init__(
            [sys.executable, "-c", CORES_JOB, *words], env=around(folder),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def says(self) -> str:
        """Return the next line that it prints."""
        return self.stdout.readline().strip()

    def end(self) -> None:
        """Kill it."""
        self.kill()
        self.communicate()


def around(folder: Path, gpus: Any = None, **environment: str) -> dict[str, str]:
    """Return the environment of a job: a folder with its own leases, and perhaps fake GPUs."""
    kept = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    shown = gpus.environment if gpus else {}
    paths = {"PYTHONPATH": str(PROJECT / "src"), "ASSAY_LEASES": str(folder / "leases")}
    return {**kept, **shown, **paths, **environment}
