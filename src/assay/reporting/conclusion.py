"""The first sentence of a report: what its comparisons show."""

import math
from functools import partial
from typing import Any

from assay.reporting import formatting
from assay.reporting.columns import Row
from assay.reporting.tables import Tables
from assay.runs import metrics
from assay.study.schema import NO_PRETRAINING


def answer(tables: Tables) -> str:
    """Return what the comparisons show, by number of labels."""
    if tables.comparisons.empty:
        return "The study names no comparison, so the report draws no conclusion."
    labels = {name: each.labels_per_class for name, each in tables.study.experiments.items()}
    by_labels: dict[Any, list[Row]] = {}
    for row in tables.comparisons.to_dict("records"):
        if row["n"] > 1:
            by_labels.setdefault(labels[row["experiment"]], []).append(row)
    if not by_labels:
        return "No comparison has two seeds yet, so the report draws no conclusion."
    text = "; ".join(_clause(tables, each, rows) for each, rows in by_labels.items())
    return text[0].upper() + text[1:] + "."


def training_data(tables: Tables, labels_per_class: int | str) -> str:
    """Return how much there is to learn from: `5 labels per class`, `all labels`, `all texts`."""
    if labels_per_class != "all":
        return f"{labels_per_class} labels per class"
    labelled = (tables.results["labels"] > 0).any() if "labels" in tables.results else True
    return "all labels" if labelled else "all texts"


def _clause(tables: Tables, labels_per_class: int | str, rows: list[Row]) -> str:
    """Return what the comparisons with one number of labels show."""
    data = f"with {training_data(tables, labels_per_class)}"
    pretrained = [row for row in rows if _is_of_pretraining(tables, row)]
    if not pretrained:
        text = partial(formatting.difference, tables.metric)
        differences = (
            f"{row['experiment']} {formatting.with_interval(row['difference'], text)} against "
            f"{row['baseline']}"
            for row in rows
        )
        return f"{data}: {', '.join(differences)}"
    seconds = [row["extra_training_seconds"].mean for row in pretrained]
    cost = formatting.span(seconds, partial(formatting.seconds, signed=True))
    cost = f", for {cost} of training" if all(map(math.isfinite, seconds)) else ""
    return f"{data} {_effect(tables.metric, pretrained)}{cost}"


def _is_of_pretraining(tables: Tables, row: Row) -> bool:
    """Return whether a pretrained experiment is compared with one from scratch."""
    experiments = tables.study.experiments
    ours, theirs = (experiments[row[each]].pretraining for each in ("experiment", "baseline"))
    return ours != NO_PRETRAINING and theirs == NO_PRETRAINING


def _effect(metric: str, rows: list[Row]) -> str:
    """Return whether pretraining helps, and by how much."""
    better = "higher" if metrics.higher_is_better(metric) else "lower"
    verdicts = [row["verdict"] for row in rows]
    if helps := verdicts.count(better):
        part = "" if helps == len(rows) else f" in {helps} of {len(rows)} comparisons"
        text = f"pretraining helps{part}"
    elif set(verdicts) == {"open"}:
        text = "no effect of pretraining could be shown"
    else:
        text = "pretraining does not help"
    effects = [row["difference"].mean for row in rows]
    preposition = "of" if metrics.is_fraction(metric) else "in"
    size = formatting.span(effects, partial(formatting.difference, metric))
    return f"{text}: {size} {preposition} {formatting.words(metric)}"
