"""Tables and numbers for a paper: booktabs tables, a command per number, and its provenance."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from assay.reporting import measures
from assay.reporting.columns import part_of
from assay.reporting.tables import Tables

SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "−": "$-$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
WORDS = ["Zero", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine"]


def write(tables: Tables, texts: dict[str, pd.DataFrame], folder: Path) -> None:
    """Write `tables/*.tex`, `numbers.tex` and `provenance.json`.

    Args:
        tables: of the report.
        texts: see `text_tables.of`.
        folder: of the report.
    """
    resources = texts["resources"].drop(columns=["Experiment", "Training"])
    summary = pd.concat([texts["summary"].drop(columns="Device"), resources], axis=1)
    (folder / "tables").mkdir(exist_ok=True)
    (folder / "tables" / "summary.tex").write_text(_table(summary))
    (folder / "tables" / "comparisons.tex").write_text(_table(texts["comparisons"]))
    numbers = [*_of_experiments(tables, set(summary)), *_of_comparisons(tables)]
    lines = [f"\\newcommand{{\\{n['command']}}}{{{escape(n['shown'])}}}" for n in numbers]
    (folder / "numbers.tex").write_text("\n".join(["% Written by Assay; do not edit.", *lines, ""]))
    (folder / "provenance.json").write_text(json.dumps(numbers, indent=1) + "\n")


def escape(text: str) -> str:
    """Return text that LaTeX prints unchanged."""
    return "".join(SPECIAL.get(character, character) for character in text)


def command(name: str) -> str:
    """Return the name of a LaTeX command, in letters only: `scratch_5_n` -> `ScratchFiveN`."""
    words = re.split(r"[^A-Za-z0-9]+", name)
    joined = "".join(word[:1].upper() + word[1:] for word in words)
    return re.sub(r"\d", lambda digit: WORDS[int(digit[0])], joined)


def _table(table: pd.DataFrame) -> str:
    headings = ["$n$" if heading == "n" else escape(heading) for heading in table]
    rows = [
        " & ".join(map(escape, row)) + r" \\" for row in table.itertuples(index=False, name=None)
    ]
    return "\n".join(
        [
            "% Written by Assay; do not edit. Needs \\usepackage{booktabs}.",
            f"\\begin{{tabular}}{{{'l' + 'r' * (len(headings) - 1)}}}",
            r"\toprule",
            " & ".join(headings) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _of_experiments(tables: Tables, headings: set[str]) -> Iterator[dict[str, Any]]:
    """Yield the numbers in the columns of the summary that have these headings."""
    columns = measures.of_experiments(tables.study.report)
    shown = [column for column in columns if column.title in headings and column.over_seeds]
    for row in tables.summary.to_dict("records"):
        if row["n"]:
            runs = _folders(tables, row["experiment"])
            for column in shown:
                for name, part in column.parts.items():
                    value = part_of(row[column.name], part)
                    caveat = column.caveat(row) if part in ("mean", "median") else ""
                    name, text = f"{row['experiment']}_{name}", column.text(value) + caveat
                    yield _number(name, value, text, column.over_seeds.estimators[part], runs)


def _of_comparisons(tables: Tables) -> Iterator[dict[str, Any]]:
    columns = {column.name: column for column in measures.of_comparisons(tables.metric)}
    estimator = "mean of differences paired by seed, Student's t, 95%"
    for row in tables.comparisons.to_dict("records"):
        if row["n"]:
            runs = _folders(tables, row["experiment"]) + _folders(tables, row["baseline"])
            text = columns["difference"].cell_text(row)
            name = f"{row['experiment']}_against_{row['baseline']}_difference_mean"
            yield _number(name, row["difference"].mean, text, estimator, runs)


def _number(name: str, value: Any, shown: str, estimator: str, runs: list[str]) -> dict[str, Any]:
    finite = isinstance(value, int) or abs(value) < float("inf")
    return {
        "command": command(name),
        "value": value if finite else None,
        "shown": shown,
        "estimator": estimator,
        "runs": runs,
    }


def _folders(tables: Tables, experiment: str) -> list[str]:
    rows = tables.complete[tables.complete["experiment"] == experiment]
    columns = ("pretrain_folder", "finetune_folder", "evaluate_folder")
    return [folder for column in columns for folder in rows[column] if folder]
