"""Tables and numbers that a paper takes in: booktabs, one command per number, and where from."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd

from assay.reporting import formatting
from assay.reporting.tables import Tables
from assay.runs import ledger

SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "−": "$-$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
WORDS = ["Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine"]
HEADINGS = {
    "score": "{metric} (95\\% interval)",
    "training": "training",
    "to target": "to target",
    "pretraining": "pretraining share",
    "n": "$n$",
}


def write(tables: Tables, folder: Path) -> None:
    """Write `tables/*.tex`, `numbers.tex` and `provenance.json`."""
    (folder / "tables").mkdir(exist_ok=True)
    for name, rows in {
        "summary": formatting.summary(tables),
        "comparisons": formatting.comparisons(tables),
    }.items():
        (folder / "tables" / f"{name}.tex").write_text(_table(rows, tables.metric))
    numbers = list(_numbers(tables))
    lines = [f"\\newcommand{{\\{n['command']}}}{{{escape(n['shown'])}}}" for n in numbers]
    (folder / "numbers.tex").write_text("\n".join(["% Written by Assay; do not edit.", *lines, ""]))
    (folder / "provenance.json").write_text(json.dumps(numbers, indent=1) + "\n")


def escape(text: str) -> str:
    """Text that LaTeX shows as it stands."""
    return "".join(SPECIAL.get(character, character) for character in text)


def _table(rows: formatting.Cells, metric: str) -> str:
    columns = [name for name in (rows[0] if rows else {}) if name != "device"]
    heads = [
        HEADINGS.get(name, escape(name)).replace("{metric}", escape(metric)) for name in columns
    ]
    body = [" & ".join(escape(row[name]) for name in columns) + r" \\" for row in rows]
    return "\n".join(
        [
            "% Written by Assay; do not edit. Needs \\usepackage{booktabs}.",
            f"\\begin{{tabular}}{{{'l' + 'r' * (len(columns) - 1)}}}",
            r"\toprule",
            " & ".join(heads) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _numbers(tables: Tables):
    """Each number of the report: its command, how it is shown, its value, estimator and runs."""
    metric, rule = tables.metric, tables.study["report"]["clock"]
    shown = dict(zip(tables.summary["experiment"], formatting.summary(tables), strict=True))
    for row in tables.summary.to_dict("records"):
        if row["n"]:
            runs = _folders(tables, row["experiment"])
            estimates = {
                f"{metric}_mean": (
                    formatting.value(metric, row[f"{metric}_mean"]),
                    "mean over seeds",
                ),
                f"{metric}_low": (_or_none(metric, row[f"{metric}_low"]), "Student's t, 95%"),
                f"{metric}_high": (_or_none(metric, row[f"{metric}_high"]), "Student's t, 95%"),
                "training_seconds_mean": (
                    shown[row["experiment"]]["training"],
                    f"mean over seeds of {ledger.DESCRIPTIONS[rule]}, pretraining included",
                ),
                "seconds_to_target_median": (
                    shown[row["experiment"]]["to target"],
                    "median over seeds, a miss counts as infinite",
                ),
                "parameters": (f"{row['parameters']:,.0f}", "count"),
                "n": (str(row["n"]), "count of complete seeds"),
            }
            for name, (text, estimator) in estimates.items():
                yield _number(row["experiment"], name, row[name], text, estimator, runs)
    for row in tables.comparisons.to_dict("records"):
        if row["n"]:
            runs = _folders(tables, row["experiment"]) + _folders(tables, row["baseline"])
            text = formatting.difference(metric, row)
            name = f"{row['experiment']}_against_{row['baseline']}"
            estimator = "mean of differences paired by seed, Student's t, 95%"
            yield _number(name, "difference_mean", row["difference_mean"], text, estimator, runs)


def _or_none(metric: str, number: float) -> str:
    return "–" if pd.isna(number) else formatting.value(metric, number)


def _number(
    subject: str, name: str, value: Any, shown: str, estimator: str, runs: list[str]
) -> dict[str, Any]:
    finite = isinstance(value, int) or abs(value) < float("inf")
    return {
        "command": command(f"{subject}_{name}"),
        "value": value if finite else None,
        "shown": shown,
        "estimator": estimator,
        "runs": runs,
    }


def command(name: str) -> str:
    """A LaTeX command's name, letters alone: `scratch_5_n` -> `ScratchFiveN`."""
    words = re.split(r"[^A-Za-z0-9]+", name)
    joined = "".join(word[:1].upper() + word[1:] for word in words)
    return re.sub(r"\d", lambda digit: WORDS[int(digit[0])], joined)


def _folders(tables: Tables, experiment: str) -> list[str]:
    rows = tables.results
    done = rows[(rows["experiment"] == experiment) & (rows["status"] == "complete")]
    columns = ("pretrain_folder", "finetune_folder", "evaluate_folder")
    return [folder for column in columns for folder in done[column] if folder]
