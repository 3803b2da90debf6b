"""Dates of files, set so that they say what digests say.

Snakemake makes a run again whose files are older than its parents', unless it has noted their
content. Dates say nothing about that: a copy or `touch` gives new ones, in any order.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from assay.runs import records
from assay.study.plan import Plan, Run


def settle(plan: Plan) -> None:
    """Date each complete run no earlier than what it was made from, and the report likewise.

    A run whose parents are other ones by now than those that it was made from keeps its dates.
    """
    newest: dict[str, int] = {}
    for run in plan.runs:  # parents first
        dates = _dates(run.folder)
        if all(f"{run.folder}/{name}" in dates for name in run.files):
            after = max((newest.get(one.folder, 0) for one in run.parents.values()), default=0)
            newest[run.folder] = _settle(dates, after, lambda run=run: _fits(run))
    if Path(plan.folder, records.RECORD).exists():
        folders = [folder for folder, _, _ in os.walk(plan.folder)]
        dates = {path: date for folder in folders for path, date in _dates(folder).items()}
        _settle(dates, max(newest.values(), default=0), lambda: _tells_of(plan))


def _dates(folder: str) -> dict[str, int]:
    """The dates of a folder's files by path; of none where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return {one.path: one.stat().st_mtime_ns for one in entries if one.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return {}


def _settle(dates: dict[str, int], after: int, is_current: Callable[[], bool]) -> int:
    """Date files no earlier than `after` if they are current; returns the newest date.

    Dates are nanoseconds.
    """
    if min(dates.values()) >= after or not is_current():
        return max(dates.values())
    now = max(time.time_ns(), after)
    for path in dates:
        with suppress(OSError):
            os.utime(path, ns=(now, now))
    return now


def _fits(run: Run) -> bool:
    """Whether a run was made from its parents' files as they are."""
    with suppress(FileNotFoundError, records.CorruptRecord, KeyError):
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
    with suppress(FileNotFoundError, records.CorruptRecord, KeyError):
        seals = records.read(Path(plan.folder))["checksums"]
        return seals == {
            run.folder: records.read(Path(run.folder))["checksum"] for run in plan.runs
        }
    return False
