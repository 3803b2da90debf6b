"""The numbers as a reader sees them: the page and the LaTeX tables both take their cells here."""

import math
from typing import Any

import pandas as pd

from assay.reporting.tables import Tables
from assay.runs import metrics

Cells = list[dict[str, str]]
MEASURED = ("energy", "mfu", "memory", "GPU memory", "cost")  # left out where unknown


def summary(tables: Tables) -> Cells:
    """A row per experiment."""
    rows = [_summary_row(tables, row) for row in tables.summary.to_dict("records")]
    unknown = [name for name in MEASURED if all(row[name] == "–" for row in rows)]
    return [{name: text for name, text in row.items() if name not in unknown} for row in rows]


def _summary_row(tables: Tables, row: dict[str, Any]) -> dict[str, str]:
    cells = {"experiment": row["experiment"], "labels per class": str(row["labels_per_class"])}
    n = str(row["n"]) if row["n"] == row["planned"] else f"{row['n']} of {row['planned']}"
    if not row["n"]:
        why = {"score": row["reason"]}
        blank = ("training", "to target", "pretraining", "parameters", *MEASURED, "device")
        return cells | why | dict.fromkeys(blank, "–") | {"n": n}
    metric = tables.metric
    score = (row[f"{metric}_{part}"] for part in ("mean", "low", "high"))
    trained, size = row["trained_parameters"], row["parameters"]
    part = "" if trained == size else f" ({trained:,.0f} trained)"
    return cells | {
        "score": with_interval(metric, *score),
        "training": _training(row),
        "to target": _to_target(row),
        "pretraining": f"{100 * row['pretraining_share_mean']:.0f}%",
        "parameters": f"{size:,.0f}{part}",
        "energy": joules(row["joules_mean"]),
        "mfu": _share(row["mfu_mean"]),
        "memory": size_of(row["peak_memory_bytes"]),
        "GPU memory": size_of(row["peak_device_memory_bytes"]),
        "cost": _price(tables, row["cost_mean"]),
        "n": n,
        "device": row["device"],
    }


def _training(row: dict[str, Any]) -> str:
    """The mean, and how many of its seeds were interrupted or adopted, so less sure."""
    counts = {"interrupted": row["resumed"]}
    counts |= {word: row[word] for word in ("adopted", "contended", "oversubscribed")}
    told = [f"{int(count)} of {row['n']} {word}" for word, count in counts.items() if count]
    return seconds(row["training_seconds_mean"]) + (f" ({', '.join(told)})" if told else "")


def _to_target(row: dict[str, Any]) -> str:
    median, reached = row["seconds_to_target_median"], int(row["reached_target"])
    if reached == row["n"]:
        return seconds(median)
    text = "not reached" if math.isinf(median) else seconds(median)
    return f"{text} ({reached} of {row['n']} seeds)"


def comparisons(tables: Tables) -> Cells:
    """A row per comparison."""
    rows = []
    for row in tables.comparisons.to_dict("records"):
        cells = {"experiment": row["experiment"], "baseline": row["baseline"], "n": str(row["n"])}
        if row["n"]:
            cells |= {
                "difference": difference(tables.metric, row),
                "verdict": _verdict(row),
                "extra training": _extra(row),
            }
        else:
            cells |= {
                "difference": "no seed is complete in both",
                "verdict": "–",
                "extra training": "–",
            }
        rows.append(cells)
    return rows


def _extra(row: dict[str, Any]) -> str:
    """The difference of training times, or why there is none."""
    why = row["seconds_not_comparable_because"]
    return f"not comparable: {why}" if why else seconds(row["extra_training_seconds_mean"], True)


def _verdict(row: dict[str, Any]) -> str:
    words = {"higher": "higher", "lower": "lower", "open": "no difference shown"}
    return "one seed tells nothing" if row["n"] == 1 else words[row["verdict"]]


def results(tables: Tables) -> Cells:
    """A row per experiment and seed."""
    rows = []
    for row in tables.results.to_dict("records"):
        done = row["status"] == "complete"
        rows.append(
            {
                "experiment": row["experiment"],
                "seed": str(row["seed"]),
                "score": value(tables.metric, row[tables.metric]) if done else row["reason"],
                "training": seconds(row["training_seconds"]) if done else "–",
                "to target": _reached(row["seconds_to_target"]) if done else "–",
                "reason": row["reason"],
                "run": row["evaluate_folder"],
            }
        )
    return rows


def runs(tables: Tables) -> Cells:
    """A row per job."""
    return [
        {
            "run": row["folder"],
            "wall": seconds(row["wall_seconds"]) if row["status"] == "complete" else "–",
            "train": seconds(row["steps_seconds"]) if row["status"] == "complete" else "–",
            "wasted": _lost(row) if row["status"] == "complete" else "–",
            "status": _status(row),
        }
        for row in tables.runs.to_dict("records")
    ]


def _status(row: dict[str, Any]) -> str:
    """Why a run is missing, or what there is to say of it."""
    if row["status"] != "complete":
        return row["reason"]
    return (
        "; ".join(filter(None, (row["adopted"], row["contended"], row["oversubscribed"])))
        or "complete"
    )


def _lost(row: dict[str, Any]) -> str:
    if row["attempts"] == 1:
        return "–"
    return f"{seconds(row['wasted_seconds'])} in {row['attempts'] - 1:.0f} interruptions"


def answer(tables: Tables) -> str:
    """The report's first sentence: what the comparisons say."""
    if tables.comparisons.empty:
        return "The study names no comparison, so the report draws no conclusion."
    experiments = tables.study["experiments"]
    labels = {name: entry["labels_per_class"] for name, entry in experiments.items()}
    grouped: dict[Any, list[dict[str, Any]]] = {}
    for row in tables.comparisons.to_dict("records"):
        if row["n"] > 1:
            grouped.setdefault(labels[row["experiment"]], []).append(row)
    clauses = [_clause(tables, label, rows) for label, rows in grouped.items()]
    if not clauses:
        return "No comparison has two seeds yet, so the report draws no conclusion."
    text = "; ".join(clauses)
    return text[0].upper() + text[1:] + "."


def _clause(tables: Tables, label: Any, rows: list[dict[str, Any]]) -> str:
    """What holds with one number of labels."""
    experiments = tables.study["experiments"]
    pretrained = [
        row
        for row in rows
        if experiments[row["experiment"]]["pretraining"] != "none"
        and experiments[row["baseline"]]["pretraining"] == "none"
    ]
    where = f"with {amount(tables, label)}"
    if not pretrained:
        details = (
            f"{r['experiment']} {difference(tables.metric, r)} on {r['baseline']}" for r in rows
        )
        return f"{where}: {', '.join(details)}"
    better = metrics.better(tables.metric)
    verdicts = [row["verdict"] for row in pretrained]
    count, clear = len(verdicts), verdicts.count(better)
    if clear == count:
        says = "pretraining helps"
    elif clear:
        says = f"pretraining helps in {clear} of {count} comparisons"
    elif set(verdicts) == {"open"}:
        says = "no effect of pretraining could be shown"
    else:
        says = "pretraining does not help"
    effects = [row["difference_mean"] for row in pretrained]
    costs = [row["extra_training_seconds_mean"] for row in pretrained]
    cost = f", for {_spans(costs)} of training" if all(map(math.isfinite, costs)) else ""
    return f"{where} {says}: {_range(tables.metric, effects)}{cost}"


def amount(tables: Tables, labels: int | str) -> str:
    """How much there is to learn from, in words."""
    if labels != "all":
        return f"{labels} labels per class"
    labelled = (tables.results["labels"] > 0).any() if "labels" in tables.results else True
    return "all labels" if labelled else "all texts"


def _range(metric: str, effects: list[float]) -> str:
    low, high = min(effects), max(effects)
    if metrics.is_share(metric):
        ends = sorted({f"{100 * low:+.1f}", f"{100 * high:+.1f}"}, key=float)
        return f"{' to '.join(ends)} points of {metric.replace('_', ' ')}"
    ends = sorted({f"{low:+.3g}", f"{high:+.3g}"}, key=float)
    return f"{' to '.join(ends)} in {metric.replace('_', ' ')}"


def _spans(costs: list[float]) -> str:
    ends = dict.fromkeys(seconds(cost, signed=True) for cost in (min(costs), max(costs)))
    return " to ".join(ends)


def difference(metric: str, row: dict[str, Any]) -> str:
    """`+8.7 points (5.2 to 12.2)` for an accuracy, plain numbers for other metrics."""
    numbers = [row[f"difference_{part}"] for part in ("mean", "low", "high")]
    if metrics.is_share(metric):
        centre, low, high = (f"{100 * number:+.1f}" for number in numbers)
        return f"{centre} points ({low} to {high})" if row["n"] > 1 else f"{centre} points"
    centre, low, high = (f"{number:+.3g}" for number in numbers)
    return f"{centre} ({low} to {high})" if row["n"] > 1 else centre


def value(metric: str, number: float) -> str:
    """An accuracy as a percentage, other metrics with four digits."""
    return f"{100 * number:.1f}%" if metrics.is_share(metric) else f"{number:.4g}"


def with_interval(metric: str, mean: float, low: float, high: float) -> str:
    """`94.2% (92.1 to 96.5)`."""
    if pd.isna(low):
        return f"{value(metric, mean)} (one seed)"
    return f"{value(metric, mean)} ({value(metric, low).rstrip('%')} to " + (
        f"{value(metric, high).rstrip('%')})"
    )


def seconds(number: float, signed: bool = False) -> str:
    """Seconds with three digits, in minutes or hours where that reads better."""
    sign = ("+" if number >= 0 else "−") if signed else ""
    number = abs(number) if signed else number
    if pd.isna(number):
        return "–"
    for size, unit in ((3600, "h"), (60, "min")):
        if number >= 2 * size:
            return f"{sign}{number / size:.1f} {unit}"
    return f"{sign}{number:.1f} s" if number >= 9.95 else f"{sign}{number:.2f} s"


def joules(number: float) -> str:
    """Joules with three digits, in kJ or MJ where that reads better."""
    if pd.isna(number):
        return "–"
    for size, unit in ((1e6, "MJ"), (1e3, "kJ")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g} J"


def size_of(number: float) -> str:
    """Bytes in MB or GB."""
    if pd.isna(number):
        return "–"
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"


def _share(number: float) -> str:
    return "–" if pd.isna(number) else f"{100 * number:.1f}%"


def _price(tables: Tables, number: float) -> str:
    """Money, with two digits that say something."""
    if pd.isna(number):
        return "–"
    digits = 2 if number >= 0.1 else 2 - math.floor(math.log10(number)) - 1 if number else 2
    return f"{number:.{digits}f} {tables.study['report']['cost']['currency']}"


def _reached(number: float) -> str:
    return "not reached" if math.isinf(number) else seconds(number)
