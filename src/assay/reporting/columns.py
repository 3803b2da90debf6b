"""A column of a report: how its values follow from records and seeds, and how it is shown."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from assay.reporting import formatting, statistics
from assay.reporting.costs import History, Record
from assay.reporting.statistics import Estimate

Row = dict[str, Any]


@dataclass(frozen=True)
class Result:
    """What the measures of an experiment with one seed follow from.

    Attributes:
        trainings: records of the pretraining, if there is one, and of the fine-tuning.
        history: a row per validation of the fine-tuning.
        peaks: see `costs.peaks`.
    """

    trainings: list[Record]
    history: History
    peaks: dict[str, float]


@dataclass(frozen=True)
class OverSeeds:
    """How an experiment's value follows from those of its seeds.

    Attributes:
        compute: maps the values of the seeds to an `Estimate`, a number or a text.
        estimators: part of the result (`""` for the whole) -> description of the estimator.
    """

    compute: Callable[[Sequence[Any]], Any]
    estimators: dict[str, str]


@dataclass(frozen=True)
class Column:
    """A column of results.csv, summary.csv, the page and the LaTeX tables.

    Attributes:
        name: in results.csv; summary.csv appends the part of an `Estimate`.
        heading: on the page and in LaTeX; a column without one is in CSV files only.
        per_run: computes the value of an experiment with one seed.
        over_seeds: computes the value of an experiment.
        format: returns the text of a number.
        caveat: returns what must accompany the number wherever it is shown.
        cell: returns the text of a cell, where it is more than the number and its caveat.
        interval: whether cells show the 95% interval.
        resource: whether the page shows the column in the table of resources.
        of: the column of results.csv that `over_seeds` takes, if its name is another one.
    """

    name: str
    heading: str = ""
    per_run: Callable[[Result], Any] | None = None
    over_seeds: OverSeeds | None = None
    format: Callable[[Any], str] = str
    caveat: Callable[[Row], str] = lambda row: ""
    cell: Callable[[Row], str] | None = None
    interval: bool = False
    resource: bool = False
    of: str = ""

    @property
    def title(self) -> str:
        """The heading, which mentions the interval where cells show it."""
        return f"{self.heading} (95% interval)" if self.interval else self.heading

    @property
    def parts(self) -> dict[str, str]:
        """The columns of summary.csv: name -> part of the value."""
        parts = self.over_seeds.estimators if self.over_seeds else ("",)
        return {f"{self.name}_{part}" if part else self.name: part for part in parts}

    def cell_text(self, row: Row) -> str:
        """Return the text of the cell in a row of the summary or of the comparisons."""
        if self.cell:
            return self.cell(row)
        if self.interval:
            return formatting.with_interval(row[self.name], self.format)
        return self.text(row[self.name]) + self.caveat(row)

    def text(self, value: Any) -> str:
        """Return the text of a number, or of the mean of an `Estimate`."""
        number = part_of(value, "mean")
        return formatting.UNKNOWN if number != number else self.format(number)


def part_of(value: Any, part: str) -> Any:
    """Return a part of an `Estimate`; any other value is returned as it is."""
    return getattr(value, part) if isinstance(value, Estimate) else value


def interval(lowest: float = -math.inf, highest: float = math.inf, of: str = "") -> OverSeeds:
    """Return the mean with Student's t interval, clipped to the possible values."""
    student = "Student's t, 95%"
    return OverSeeds(
        lambda values: statistics.mean(values, lowest, highest),
        {"mean": f"mean over seeds{of}", "low": student, "high": student},
    )


def largest(values: Iterable[float]) -> float:
    """Return the maximum of the known values."""
    return max((value for value in values if not math.isnan(value)), default=math.nan)


MEAN = OverSeeds(statistics.mean, {"mean": "mean over seeds"})
MEDIAN = OverSeeds(statistics.median, {"median": "median over seeds, a miss counts as infinite"})
LARGEST = OverSeeds(largest, {"": "maximum over seeds"})
FIRST = OverSeeds(lambda values: values[0], {"": "count"})
SEEDS = OverSeeds(len, {"": "count of complete seeds"})
TRUE_SEEDS = OverSeeds(sum, {"": "count of seeds"})
FINITE_SEEDS = OverSeeds(lambda values: sum(map(math.isfinite, values)), {"": "count of seeds"})
DISTINCT = OverSeeds(lambda values: " / ".join(sorted(set(values))), {"": "distinct values"})
