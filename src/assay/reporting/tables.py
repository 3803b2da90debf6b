"""Tables of a report, from the records of a study's runs."""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from assay.reporting import comparability, measures, results, statistics
from assay.reporting.columns import Column, Row, part_of
from assay.reporting.costs import Record
from assay.study.plan import Plan
from assay.study.schema import NO_PRETRAINING, Experiment, Study


@dataclass(frozen=True)
class Tables:
    """What a report shows.

    Attributes:
        runs: a row per job, with its seconds by phase.
        results: a row per experiment and seed.
        summary: a row per experiment over its complete seeds; means are `Estimate`s.
        comparisons: a row per comparison: differences paired by seed, as `Estimate`s.
        history: a row per validation of each experiment and seed.
        records: folder -> record of each complete run.
    """

    study: Study
    runs: pd.DataFrame
    results: pd.DataFrame
    summary: pd.DataFrame
    comparisons: pd.DataFrame
    history: pd.DataFrame
    records: dict[str, Record]

    @property
    def metric(self) -> str:
        """The metric that the report compares, such as `accuracy`."""
        return self.study.report.metric

    @cached_property
    def score(self) -> str:
        """The column of that metric in results and summary."""
        return measures.score(self.study.report).name

    @cached_property
    def complete(self) -> pd.DataFrame:
        """Return the results whose runs are all complete."""
        return self.results[self.results["status"] == "complete"]

    def write(self, folder: Path) -> None:
        """Write the tables with all digits as CSV; each part of an `Estimate` is a column."""
        for name, frame in {
            "results": self.results,
            "summary": _flat(self.summary, measures.of_experiments(self.study.report)),
            "comparisons": _flat(self.comparisons, measures.of_comparisons(self.metric)),
            "runs": self.runs,
        }.items():
            frame.to_csv(folder / f"{name}.csv", index=False, lineterminator="\n")


def collect(plan: Plan) -> Tables:
    """Read the records of a plan's runs; a run that is missing becomes a row that says why."""
    runs = results.read(plan)
    table = pd.DataFrame(results.all_of(plan, runs))
    return Tables(
        study=plan.study,
        runs=pd.DataFrame([results.job(run, runs) for run in plan.runs]),
        results=table,
        summary=_summary(plan.study, table),
        comparisons=_comparisons(plan.study, table),
        history=pd.DataFrame(results.validations(plan, runs)),
        records=runs.records,
    )


def _ordered(study: Study) -> list[tuple[str, Experiment]]:
    """Return the experiments: those with few labels first, then those from scratch first."""

    def key(item: tuple[str, Experiment]) -> tuple:
        name, entry = item
        labels = math.inf if entry.labels_per_class == "all" else entry.labels_per_class
        return labels, entry.pretraining != NO_PRETRAINING, name

    return sorted(study.experiments.items(), key=key)


def _summary(study: Study, results: pd.DataFrame) -> pd.DataFrame:
    columns = [each for each in measures.of_experiments(study.report) if each.over_seeds]
    rows = []
    for name, entry in _ordered(study):
        planned = results[results["experiment"] == name]
        complete = planned[planned["status"] == "complete"]
        row: Row = {
            "experiment": name,
            "pretraining": entry.pretraining,
            "labels_per_class": entry.labels_per_class,
            "n": len(complete),
            "planned": len(planned),
            "reason": "; ".join(sorted(set(planned["reason"]) - {""})),
        }
        for column in columns if len(complete) else ():
            values = complete[column.of or column.name].tolist()
            row[column.name] = column.over_seeds.compute(values)
        rows.append(row)
    return pd.DataFrame(rows)


def _comparisons(study: Study, results: pd.DataFrame) -> pd.DataFrame:
    baselines, score = study.report.comparisons, measures.score(study.report).name
    complete = results[results["status"] == "complete"].set_index("seed")
    rows = [
        _comparison(name, baseline, complete, score)
        for name, _ in _ordered(study)
        for baseline in baselines.get(name, [])
    ]
    return pd.DataFrame(rows, columns=None if rows else ["experiment", "baseline", "n"])


def _comparison(name: str, baseline: str, complete: pd.DataFrame, score: str) -> Row:
    pair = [complete[complete["experiment"] == each] for each in (name, baseline)]
    seeds = sorted(set(pair[0].index) & set(pair[1].index))
    row: Row = {"experiment": name, "baseline": baseline, "n": len(seeds)}
    if not seeds:
        return row
    ours, theirs = (each.loc[seeds] for each in pair)
    difference = statistics.mean((ours[score] - theirs[score]).tolist())
    seconds = (ours["training_seconds"] - theirs["training_seconds"]).tolist()
    conditions = map(json.loads, (*ours["conditions"], *theirs["conditions"]))
    obstacles = comparability.obstacles(each for trainings in conditions for each in trainings)
    return row | {
        "difference": difference,
        "verdict": statistics.verdict(difference),
        "extra_training_seconds": statistics.mean([] if obstacles else seconds),
        "seconds_not_comparable_because": "; ".join(obstacles),
    }


def _flat(frame: pd.DataFrame, columns: tuple[Column, ...]) -> pd.DataFrame:
    """Return a table with a column for each part of an `Estimate`."""
    parts = {column.name: column.parts for column in columns}
    flat = {}
    for name in frame:
        for title, part in parts.get(name, {name: ""}).items():
            flat[title] = (
                frame[name].map(lambda value, p=part: part_of(value, p)) if part else frame[name]
            )
    return pd.DataFrame(flat)
