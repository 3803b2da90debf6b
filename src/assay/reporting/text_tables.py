"""The tables of a report as text: the page and the LaTeX files take their cells here."""

import pandas as pd

from assay.reporting import formatting, measures
from assay.reporting.columns import Column, Row
from assay.reporting.formatting import UNKNOWN
from assay.reporting.tables import Tables


def of(tables: Tables) -> dict[str, pd.DataFrame]:
    """Return `summary`, `resources`, `comparisons`, `results` and `runs`; headings are columns."""
    summary, resources = _summary(tables)
    return {
        "summary": summary,
        "resources": resources,
        "comparisons": _comparisons(tables),
        "results": _results(tables),
        "runs": pd.DataFrame([_run(row) for row in tables.runs.to_dict("records")]),
    }


def _summary(tables: Tables) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a row per experiment: the main table, and the resources that are known of any."""
    columns = [each for each in measures.of_experiments(tables.study.report) if each.heading]
    rows = tables.summary.to_dict("records")
    table = pd.DataFrame({c.title: [_cell(c, row, tables.score) for row in rows] for c in columns})
    resources = [each.title for each in columns if each.resource]
    known = [title for title in resources if (table[title] != UNKNOWN).any()]
    return table.drop(columns=resources), table[["Experiment", "Training", *known]]


def _cell(column: Column, row: Row, score: str) -> str:
    if row["n"] or not (column.per_run or column.name == score):
        return column.cell_text(row)
    return row["reason"] if column.name == score else UNKNOWN


def _comparisons(tables: Tables) -> pd.DataFrame:
    columns = measures.of_comparisons(tables.metric)
    rows = tables.comparisons.to_dict("records")
    return pd.DataFrame({c.title: [_comparison_cell(c, row) for row in rows] for c in columns})


def _comparison_cell(column: Column, row: Row) -> str:
    if row["n"] or column.name in ("experiment", "baseline", "n"):
        return column.cell_text(row)
    return "no seed is complete in both" if column.name == "difference" else UNKNOWN


def _results(tables: Tables) -> pd.DataFrame:
    """Return a row per experiment and seed."""
    columns = {each.name: each for each in measures.of_experiments(tables.study.report)}
    names = (tables.score, "training_seconds", measures.TO_TARGET)
    shown = [columns[name] for name in names if name in columns]

    def cell(column: Column, row: Row) -> str:
        if row["status"] == "complete":
            return column.text(row[column.name])
        return row["reason"] if column.name == tables.score else UNKNOWN

    rows = tables.results.to_dict("records")
    table = (
        tables.results[["experiment", "seed"]].astype(str).set_axis(["Experiment", "Seed"], axis=1)
    )
    table = table.assign(**{c.heading: [cell(c, row) for row in rows] for c in shown})
    return table.assign(Folder=tables.results["evaluate_folder"])


def _run(row: Row) -> dict[str, str]:
    """Return the row of a job."""
    cells = {"Folder": row["folder"], "Status": row["reason"]}
    if row["status"] != "complete":
        return cells | dict.fromkeys(("Wall time", "Training", "Wasted"), UNKNOWN)
    notes = filter(None, (row["adopted"], row["contended"], row["oversubscribed"]))
    interruptions = row["attempts"] - 1
    wasted = f"{formatting.seconds(row['wasted_seconds'])} in {interruptions:.0f} interruptions"
    return cells | {
        "Status": "; ".join(notes) or "complete",
        "Wall time": formatting.seconds(row["wall_seconds"]),
        "Training": formatting.seconds(row["steps_seconds"]),
        "Wasted": wasted if interruptions else UNKNOWN,
    }
