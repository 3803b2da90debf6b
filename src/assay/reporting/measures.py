"""The measures of a report: each is defined here once, and every table derives from it."""

import json
import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from assay.reporting import columns, comparability, costs, formatting
from assay.reporting.columns import Column, Result, Row
from assay.reporting.costs import Record
from assay.runs import ledger, metrics, units
from assay.study.schema import Report

MARKS: dict[str, Callable[[Record], Any]] = {  # why a training's seconds are less certain
    "resumed": lambda record: record["attempts"] > 1,
    "adopted": lambda record: "adopted" in record,
    "contended": comparability.contended,
    "oversubscribed": comparability.oversubscribed,
}
TO_TARGET = "seconds_to_target"
VERDICTS = {"higher": "higher", "lower": "lower", "open": "no difference shown"}
KEYS = ("experiment", "seed", "status", "reason", "pretraining", "planned",
        "pretrain_folder", "finetune_folder", "evaluate_folder")  # fmt: skip


def of_experiments(report: Report) -> tuple[Column, ...]:
    """Return the columns of results and summary, in the order of every table.

    Args:
        report: the study's section of this name.
    """
    return (Column("experiment", "Experiment"), score(report), *_measures(report))


def of_comparisons(metric: str) -> tuple[Column, ...]:
    """Return the columns of a comparison of two experiments, paired by seed."""
    return (
        Column("experiment", "Experiment"),
        Column("baseline", "Baseline"),
        Column("difference", f"Difference in {formatting.words(metric)}", interval=True,
               over_seeds=columns.interval(), format=partial(formatting.difference, metric)),
        Column("verdict", "Verdict", cell=_verdict),
        Column("extra_training_seconds", "Extra training", over_seeds=columns.MEAN, cell=_extra),
        Column("n", "n"),
    )  # fmt: skip


def score(report: Report) -> Column:
    """Return the column of the metric that the report compares."""
    metric = report.metric
    return Column(
        free_name(metric, taken(report)), f"Test {formatting.words(metric)}", interval=True,
        over_seeds=columns.interval(*metrics.bounds(metric)),
        format=partial(formatting.score, metric),
    )  # fmt: skip


def taken(report: Report) -> set[str]:
    """Return the names of columns that are not metrics of `evaluate`."""
    return {*KEYS, *(column.name for column in _measures(report))}


def free_name(metric: str, taken: Iterable[str]) -> str:
    """Return the column of a metric: its name, or `metric_<name>` if another column has that."""
    return f"metric_{metric}" if metric in taken else metric


def _measures(report: Report) -> tuple[Column, ...]:
    clock, target, rate = report.clock, report.target, report.cost

    def seconds(r: Result) -> list[float]:
        return [ledger.training_seconds(record["seconds"], clock) for record in r.trainings]

    def to_target(r: Result) -> float:
        last = costs.seconds_to_target(r.trainings[-1], r.history, target, clock)
        return sum(seconds(r)[:-1]) + last

    def metric(name: str, *shown: Any, **options: Any) -> Column:
        return Column(name, *shown, per_run=lambda r: r.trainings[-1]["metrics"][name], **options)

    return (
        Column("pretraining_seconds", per_run=lambda r: sum(seconds(r)[:-1], 0.0)),
        Column("finetuning_seconds", per_run=lambda r: seconds(r)[-1]),
        Column("training_seconds", "Training", lambda r: sum(seconds(r)),
               columns.interval(0.0, of=f" of {ledger.DESCRIPTIONS[clock]}, pretraining included"),
               formatting.seconds, caveat=_marks),
        *([] if target is None else [
            Column(TO_TARGET, f"To validation target {target}", to_target,
                   columns.MEDIAN, formatting.seconds, caveat=_misses),
            Column("reached_target", over_seeds=columns.FINITE_SEEDS, of=TO_TARGET)]),
        Column("pretraining_share", "Pretraining share",
               lambda r: sum(seconds(r)[:-1]) / sum(seconds(r)),
               columns.MEAN, partial(formatting.percent, digits=0)),
        metric("labels"),
        metric("parameters", "Parameters", over_seeds=columns.FIRST, format=formatting.count,
               cell=_parameters),
        metric("trained_parameters", over_seeds=columns.FIRST),
        Column("labels_per_class", "Labels per class"),
        Column("n", "n", over_seeds=columns.SEEDS, of="seed", cell=_seeds),
        Column("device", "Device", lambda r: formatting.device(r.trainings[-1]["device"]),
               columns.DISTINCT),
        *(Column(name, per_run=_in_any_training(holds), over_seeds=columns.TRUE_SEEDS)
          for name, holds in MARKS.items()),
        Column("joules", "Energy", lambda r: costs.joules(r.trainings),
               columns.MEAN, units.joules, resource=True),
        Column("flops_per_sample", per_run=lambda r: r.trainings[-1]["flops_per_sample"],
               over_seeds=columns.FIRST),
        Column("mfu", "MFU", lambda r: costs.mfu(r.trainings[-1], r.history, r.peaks),
               columns.MEAN, formatting.percent, resource=True),
        Column("peak_memory_bytes", "Memory",
               lambda r: max(record["peak_memory_bytes"] for record in r.trainings),
               columns.LARGEST, units.size, resource=True),
        Column("peak_device_memory_bytes", "GPU memory",
               lambda r: columns.largest(map(_device_memory_bytes, r.trainings)),
               columns.LARGEST, units.size, resource=True),
        Column("cost", "Cost", lambda r: sum(costs.cost(record, rate) for record in r.trainings),
               columns.MEAN, partial(formatting.money, currency=rate and rate.currency),
               resource=True),
        Column("conditions", per_run=lambda r: json.dumps(
            [comparability.conditions(record) for record in r.trainings])),
    )  # fmt: skip


def _in_any_training(holds: Callable[[Record], Any]) -> Callable[[Result], bool]:
    return lambda result: any(map(holds, result.trainings))


def _device_memory_bytes(record: Record) -> float:
    return record["measured"].get("peak_device_memory_bytes", math.nan)


def _marks(row: Row) -> str:
    """Return how many seeds were interrupted, adopted, contended or oversubscribed."""
    words = {mark: mark for mark in MARKS} | {"resumed": "interrupted"}
    counts = [f"{row[mark]:.0f} of {row['n']} {words[mark]}" for mark in MARKS if row[mark]]
    return f" ({', '.join(counts)})" if counts else ""


def _misses(row: Row) -> str:
    reached = row["reached_target"]
    return "" if reached == row["n"] else f" ({reached:.0f} of {row['n']} seeds)"


def _parameters(row: Row) -> str:
    trained, total = map(formatting.count, (row["trained_parameters"], row["parameters"]))
    return total if trained == total else f"{total} ({trained} trained)"


def _seeds(row: Row) -> str:
    return str(row["n"]) if row["n"] == row["planned"] else f"{row['n']} of {row['planned']}"


def _verdict(row: Row) -> str:
    return "not testable with one seed" if row["n"] == 1 else VERDICTS[row["verdict"]]


def _extra(row: Row) -> str:
    """Return the difference in training seconds, or why the times are not comparable."""
    reason, seconds = row["seconds_not_comparable_because"], row["extra_training_seconds"].mean
    return f"not comparable: {reason}" if reason else formatting.seconds(seconds, signed=True)
