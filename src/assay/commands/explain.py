"""`assay plan` and `assay explain`: which runs are due, why, and how long they take."""

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from assay.commands import cli
from assay.commands.cli import Answer
from assay.commands.forecast import makespan
from assay.commands.reasons import CODE, Reason, due, nearest, reasons, report_reason
from assay.devices import cpu
from assay.runs import records
from assay.runs.units import duration
from assay.study.plan import Run

SEEDS_SHOWN = 8


def plan(study: Path) -> Answer:
    """Show which runs `snakemake` would start now, why, and how long they take."""
    found, cores = cli.read(study), cpu.available()
    pending = due(found)
    why, page = reasons(found, pending), report_reason(found, pending)
    data = {
        "study": found.name,
        "runs": [_describe(reason) for reason in why],
        "report": page,
        "seconds": _seconds(why, cores),
        "cores": cores,
    }
    return Answer(table(why, cores, page), data)


def explain(study: Path, run: str) -> Answer:
    """Show of each selected run whether it is due, why, and how long it takes."""
    found = cli.read(study)
    selected = cli.select(found, run)
    by_folder = {reason.run.folder: reason for reason in reasons(found, due(found))}
    lines: list[str] = []
    data = []
    for one in selected:
        reason, earlier = by_folder.get(one.folder), nearest(one)
        compared = str(earlier[0]) if reason and earlier else None
        lines += _in_full(one, reason, compared)
        shown = _describe(reason) if reason else {**cli.describe(one), "reasons": []}
        data.append({**shown, "due": reason is not None, "compared_with": compared})
    return Answer(lines, data)


def table(reasons: list[Reason], cores: int, report: str | None) -> list[str]:
    """Return a line per stage, name and cause, and a line with the total time.

    Args:
        report: why the report is due; None if it is not.
    """
    grouped: dict[tuple, list[Reason]] = {}
    for reason in reasons:
        key = (reason.run.stage, reason.run.name, reason.causes)
        grouped.setdefault(key, []).append(reason)
    rows = [
        (f"{stage} {name}", _seeds(group), _mean_time(group), "; ".join(causes))
        for (stage, name, causes), group in grouped.items()
    ]
    if report:
        rows.append(("report", "", "", report))
    if not rows:
        return ["Nothing to run: every run of the study and its report are complete."]
    lines = _aligned([("would run", "seeds", "time each", "reason"), *rows])
    if any(_only_code(reason) for reason in reasons):
        lines.append("Only code changed? `assay adopt` keeps runs that the new code reproduces.")
    return [*lines, _total(reasons, cores)]


def _aligned(rows: list[tuple[str, str, str, str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=False)] for row in rows)
    return ["  ".join([*cells, row[3]]) for cells, row in zip(padded, rows, strict=True)]


def _only_code(reason: Reason) -> bool:
    return bool(reason.causes) and all(cause.startswith(CODE) for cause in reason.causes)


def _seconds(reasons: list[Reason], cores: int) -> float | None:
    """Return the predicted seconds of all runs together; None if nothing is known of any."""
    known = {reason.run.folder: reason.seconds for reason in reasons if reason.seconds is not None}
    if reasons and not known:
        return None
    return makespan([reason.run for reason in reasons], known, cores)


def _total(reasons: list[Reason], cores: int) -> str:
    if not reasons:
        return "only the report"
    seconds = _seconds(reasons, cores)
    if seconds is None:
        return f"{len(reasons)} runs; the time they take is unknown until some have run"
    unknown = sum(reason.seconds is None for reason in reasons)
    more = f", plus {unknown} runs of unknown length" if unknown else ""
    return f"{len(reasons)} runs, about {duration(seconds)} on {cores} cores{more}"


def _seeds(group: list[Reason]) -> str:
    seeds = [reason.run.seed for reason in group if reason.run.seed is not None]
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}-{seeds[-1]}"
    return ",".join(map(str, seeds)) if len(seeds) < SEEDS_SHOWN else f"{len(seeds)} seeds"


def _mean_time(group: list[Reason]) -> str:
    known = [reason.seconds for reason in group if reason.seconds is not None]
    return duration(statistics.mean(known)) if known else "?"


def _describe(reason: Reason) -> dict[str, Any]:
    return {
        **cli.describe(reason.run),
        "reasons": list(reason.causes),
        "seconds": reason.seconds,
    }


def _in_full(run: Run, reason: Reason | None, compared: str | None) -> Iterator[str]:
    yield f"{run.title}: {run.folder}"
    if reason is None:
        yield f"  {records.problem(Path(run.folder)) or 'complete'}; would not run"
        return
    yield from (f"  would run: {cause}" for cause in reason.causes)
    if compared:
        yield f"  compared with {compared}"
    time = "unknown" if reason.seconds is None else f"about {duration(reason.seconds)}"
    yield f"  expected time: {time}"
