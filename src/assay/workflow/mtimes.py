"""Sets the modification times of files, so that they agree with the hashes.

Snakemake reruns a run whose files are older than its parents', unless it has recorded their
content. A copy or `touch` changes modification times in any order, and no content.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from assay.runs import records
from assay.study.plan import Plan, Run


def settle(plan: Plan) -> None:
    """Make no complete run older than its parents, and the report no older than its runs.

    A run that was made from other files of its parents keeps its times.
    """
    newest: dict[str, int] = {}
    for run in plan.runs:  # parents first
        times = _times(run.folder)
        if all(f"{run.folder}/{name}" in times for name in run.files):
            after = max((newest.get(one.folder, 0) for one in run.parents.values()), default=0)
            newest[run.folder] = _settle(times, after, lambda run=run: _is_current(run))
    if Path(plan.folder, records.RECORD).exists():
        folders = [folder for folder, _, _ in os.walk(plan.folder)]
        times = {path: time_ns for folder in folders for path, time_ns in _times(folder).items()}
        _settle(times, max(newest.values(), default=0), lambda: _is_current_report(plan))


def _times(folder: str) -> dict[str, int]:
    """Return the times of a folder's files by path; none if there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return {one.path: one.stat().st_mtime_ns for one in entries if one.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return {}


def _settle(times: dict[str, int], after: int, is_current: Callable[[], bool]) -> int:
    """Make files no older than `after` if they are current, and return the newest time.

    Times are in nanoseconds.
    """
    if min(times.values()) >= after or not is_current():
        return max(times.values())
    now = max(time.time_ns(), after)
    for path in times:
        with suppress(OSError):
            os.utime(path, ns=(now, now))
    return now


def _is_current(run: Run) -> bool:
    """Return whether a run was made from the present files of its parents."""
    with suppress(FileNotFoundError, records.CorruptRecord, KeyError):
        parents = records.read(Path(run.folder))["parents"]
        return all(
            parents[role]["digest"] == parent.digest
            and parents[role]["files"].items() <= records.read(Path(parent.folder))["files"].items()
            for role, parent in run.parents.items()
        )
    return False


def _is_current_report(plan: Plan) -> bool:
    """Return whether the report was written from the present records of its runs."""
    with suppress(FileNotFoundError, records.CorruptRecord, KeyError):
        checksums = records.read(Path(plan.folder))["checksums"]
        return checksums == {
            run.folder: records.read(Path(run.folder))["checksum"] for run in plan.runs
        }
    return False
