"""Predict how long runs take, from the records of earlier runs."""

import statistics
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from assay.runs import records
from assay.study.plan import Run

SAMPLE = 20  # records that a prediction uses at most
PER_STEP = ("train", "data_wait", "validate", "checkpoint")  # phases that grow with the steps


class Forecast:
    """Predicts from runs of the same stage and name, or of the same stage if there are none."""

    def __init__(self) -> None:
        self._records: dict[str, list[dict[str, Any]]] = {}

    def seconds(self, run: Run) -> float | None:
        """Return the median of earlier runs, scaled to this run's steps; None without any."""
        earlier = self._read(f"{run.stage}/{run.name}") or self._read(f"{run.stage}/*")
        return statistics.median(scaled(run, record) for record in earlier) if earlier else None

    def _read(self, pattern: str) -> list[dict[str, Any]]:
        if pattern not in self._records:
            paths = islice(Path("results").glob(f"{pattern}/*/{records.RECORD}"), SAMPLE)
            self._records[pattern] = [record for _, record in records.readable(paths)]
        return self._records[pattern]


def scaled(run: Run, record: dict[str, Any]) -> float:
    """Return the seconds of an earlier run, its training scaled to a run's number of steps."""
    seconds = record["seconds"]
    factor = run.settings.get("steps", 1) / record["settings"].get("steps", 1)
    return (
        seconds["wall"]
        - seconds["wasted"]
        + sum(seconds[phase] for phase in PER_STEP) * (factor - 1)
    )


def makespan(runs: list[Run], seconds: Mapping[str, float], cores: int) -> float:
    """Return a lower bound of the seconds until all runs are complete.

    Args:
        runs: parents first.
        seconds: folder -> predicted seconds; others count as 0.
        cores: shared by the jobs, each of which keeps `threads` x `devices` of them busy.
    """
    ends: dict[str, float] = {}
    work = 0.0
    for run in runs:
        start = max((ends.get(parent.folder, 0.0) for parent in run.parents.values()), default=0.0)
        known = seconds.get(run.folder, 0.0)
        ends[run.folder] = start + known
        work += known * run.settings.get("threads", 1) * run.settings.get("devices", 1)
    return max([work / cores, *ends.values()])
