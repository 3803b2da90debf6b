"""The variables that jobs inherit from the snakemake that starts them."""

import os
import sys
from pathlib import Path

from assay.devices import cpu
from assay.runs import supervision


def prepare(source: str, threads: int, is_main: bool) -> None:
    """Let jobs use this Python, this checkout's code and their own threads, and watch this process.

    Args:
        source: the folder of the code.
        threads: of a job.
        is_main: this process plans the workflow; otherwise it is a part of a job.
    """
    _put_first("PATH", str(Path(sys.executable).parent))
    _put_first("PYTHONPATH", source)
    os.environ |= cpu.environment(threads)
    os.environ[supervision.PARENT] = supervision.mark(os.getpid())
    if is_main:
        os.environ[supervision.WORKFLOW] = os.environ[supervision.PARENT]


def _put_first(variable: str, folder: str) -> None:
    others = (part for part in os.environ.get(variable, "").split(os.pathsep) if part)
    os.environ[variable] = os.pathsep.join([folder, *(part for part in others if part != folder)])
