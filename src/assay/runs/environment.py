"""The machine and the software of a run."""

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
OPTIONAL = ("tokenizers", "timm", "transformers", "huggingface-hub", "datasets")


def describe() -> dict[str, Any]:
    """Return Python, packages, operating system, processor and the commit of this project."""
    return {
        "python": platform.python_version(),
        "packages": packages(),
        "system": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "commit": _commit(),
    }


def packages() -> dict[str, str | None]:
    """Return the versions of the packages that every run uses, and of installed optional ones."""
    optional = {name: version for name in OPTIONAL if (version := _version(name))}
    return {name: _version(name) for name in PACKAGES} | optional


def processor() -> str:
    """Return the processor's name from the operating system."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def peak_memory_bytes() -> int:
    """Return the peak resident memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit of this file's checkout, marked `-dirty` if the checkout has edits."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
