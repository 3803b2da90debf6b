"""Runs the reference speed-run of CIFAR-10 as it is: a script of the airbench repository."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FINISHED = re.compile(r"\|\s*eval\s*\|.*?([\d.]+)\s*\|\s*([\d.]+)\s*\|\s*$")  # accuracy, seconds


def run(script: Path, splits: dict[str, dict[str, Tensor]], runs: int) -> dict[str, Any]:
    """Let the script train a few times, and end it then: by itself it does so 200 times.

    It finds the data where it would have put them, so that it downloads none.

    Args:
        splits: `train` and `test`, each `image` (uint8, (n, 3, 32, 32)) and `label`.
        runs: trainings, besides its warm-up.

    Returns:
        `wall_seconds` of the process, the `text` that it printed, and by training, without the
        warm-up, what it says of `seconds` and `accuracy`: nothing if it prints another table.
    """
    with tempfile.TemporaryDirectory() as folder:
        _provide(Path(folder, "cifar10"), splits)
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-u", script.resolve()], cwd=folder, env=_environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        lines: list[str] = []
        found: list[tuple[str, str]] = []
        for line in process.stdout:
            lines.append(line)
            found += FINISHED.findall(line)
            if len(found) > runs:
                os.killpg(process.pid, signal.SIGKILL)  # it has processes that compile
                break
        process.communicate()
        wall = time.perf_counter() - begun
    return {
        "wall_seconds": wall,
        "text": "".join(lines),
        "accuracy": [float(accuracy) for accuracy, _ in found[1:]],
        "seconds": [float(seconds) for _, seconds in found[1:]],
    }


def _environment() -> dict[str, str]:
    """This process's, without what makes its own kernels deterministic."""
    return {name: value for name, value in os.environ.items() if name != "CUBLAS_WORKSPACE_CONFIG"}


def _provide(folder: Path, splits: dict[str, dict[str, Tensor]]) -> None:
    folder.mkdir()
    for name, split in splits.items():
        images = split["image"].permute(0, 2, 3, 1).contiguous()
        content = {"images": images, "labels": split["label"], "classes": []}
        torch.save(content, folder / f"{name}.pt")
