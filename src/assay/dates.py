"""Dates of files, set so that they say what digests say.

Snakemake makes a run again whose files are older than its parents', unless it has noted their
content. Dates say nothing about that: a copy or `touch` gives new ones, in any order.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from assay import records
from assay.plan import Plan, Run


def settle(plan: Plan) -> None:
    """Date each complete run no earlier than what it was made from, and the report likewise.

    A run whose parents are other ones by now than those that it was made from keeps its dates.
    """
    newest: dict[str, int] = {}
    for run in plan.runs:  # parents first
        folder = Path(run.folder)
        files = [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
        if {path.name for path in files} >= set(run.files):
            after = max((newest.get(one.folder, 0) for one in run.parents.values()), default=0)
            newest[run.folder] = _settle(files, after, lambda run=run: _fits(run))
    page = Path(plan.folder)
    if (page / records.RECORD).exists():
        files = [path for path in page.rglob("*") if path.is_file()]
        _settle(files, max(newest.values(), default=0), lambda: _tells_of(plan))


def _settle(files: list[Path], after: int, is_current: Callable[[], bool]) -> int:
    """Date files no earlier than `after` if they are current; returns the newest date.

    Dates are nanoseconds.
    """
    dates = [path.stat().st_mtime_ns for path in files]
    if min(dates) >= after or not is_current():
        return max(dates)
    now = max(time.time_ns(), after)
    for path in files:
        with suppress(OSError):
            os.utime(path, ns=(now, now))
    return now


def _fits(run: Run) -> bool:
    """Whether a run was made from its parents' files as they are."""
    with suppress(FileNotFoundError, records.Damaged, KeyError):
        made_from = records.read(Path(run.folder))["parents"]
        return all(
            made_from[role]["digest"] == parent.digest
            and made_from[role]["files"].items()
            <= records.read(Path(parent.folder))["files"].items()
            for role, parent in run.parents.items()
        )
    return False


def _tells_of(plan: Plan) -> bool:
    """Whether the report was written from the runs' records as they are."""
    with suppress(FileNotFoundError, records.Damaged, KeyError):
        seals = records.read(Path(plan.folder))["seals"]
        return seals == {run.folder: records.read(Path(run.folder))["seal"] for run in plan.runs}
    return False
