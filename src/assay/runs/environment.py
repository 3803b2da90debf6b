"""The machine and the software that a run used."""

import os
import platform
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "pytorch-lightning",
    "snakemake",
    "numpy",
    "pandas",
    "scikit-learn",
    "safetensors",
)
CHOSEN = ("tokenizers", "timm", "transformers", "huggingface-hub", "datasets")  # by some studies


def describe() -> dict[str, Any]:
    """Python, packages, operating system, processor and the commit of this project."""
    return {
        "python": platform.python_version(),
        "packages": packages(),
        "system": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "commit": _commit(),
    }


def packages() -> dict[str, str | None]:
    """Versions of those that each run uses, and of others that are here."""
    chosen = {name: version for name in CHOSEN if (version := _version(name))}
    return {name: _version(name) for name in PACKAGES} | chosen


def processor() -> str:
    """The processor's name, as the operating system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def peak_memory_bytes() -> int:
    """The most memory of the host that this process has held at once."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the checkout that this file stands in, marked where it has been edited."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
