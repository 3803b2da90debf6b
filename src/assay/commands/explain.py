"""Why: what a study would run, which change caused each run, and how long it will take."""

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from assay.commands import cli
from assay.devices import cpu
from assay.runs import identity, records
from assay.runs.units import duration
from assay.study.plan import Plan, Run

SAMPLE = 20  # records that a prediction is made from
CODE = "src/"  # how a cause begins that lies in code
NAMED = 3  # files that a line names


@dataclass(frozen=True)
class Reason:
    """Why a run would be made.

    Attributes:
        causes: what differs from the run that was made before, or why there is none.
        seconds: how long it will take, as earlier runs of its stage tell; None where none does.
    """

    run: Run
    causes: tuple[str, ...]
    seconds: float | None


def explain(study: Path = Path("config.yaml"), run: str | None = None) -> None:
    """Tell what `snakemake` would run now, and which change caused it. Nothing is run.

    Args:
        study: the study's file.
        run: tell of these runs alone: a stage, an experiment, or a path such as
            `finetune/scratch_few/seed0`.
    """
    plan = cli.read(study)
    wanted = due(plan)
    if run is None:
        print("\n".join(table(reasons(plan, wanted), cpu.available(), of_report(plan, wanted))))
        return
    chosen = cli.chosen(plan, run)
    found = {reason.run.folder: reason for reason in reasons(plan, wanted)}
    for one in chosen:
        print("\n".join(_in_full(one, found.get(one.folder))))


def due(plan: Plan) -> dict[str, str]:
    """The folders of the runs that are not complete, or whose parents are not, as `reasons` wants.

    What only Snakemake knows is not in it: that it did not note the end of a run.
    """
    found: dict[str, str] = {}
    for run in plan.runs:
        again = any(parent.folder in found for parent in run.parents.values())
        if again or not all(Path(run.folder, name).exists() for name in run.files):
            found[run.folder] = ""
    return found


def reasons(plan: Plan, wanted: Mapping[str, str]) -> list[Reason]:
    """Why each of some runs would be made.

    Args:
        wanted: their folders, and what Snakemake has to say of each.
    """
    chosen = [run for run in plan.runs if run.folder in wanted]
    forecast = _Forecast()
    return [Reason(run, tuple(_causes(run, wanted)), forecast.seconds(run)) for run in chosen]


def table(found: list[Reason], cores: int, report: str | None) -> list[str]:
    """Lines for a terminal: a line per stage, name and cause, and the time in all.

    Args:
        report: why the report would be made; None where it would not.
    """
    grouped: dict[tuple, list[Reason]] = {}
    for reason in found:
        key = (reason.run.stage, reason.run.name, reason.causes)
        grouped.setdefault(key, []).append(reason)
    rows = [
        (f"{stage} {name}", _seeds(group), _each(group), "; ".join(causes))
        for (stage, name, causes), group in grouped.items()
    ]
    if report:
        rows.append(("report", "", "", report))
    if not rows:
        return ["Nothing would run: every run of the study is complete, and so is its report."]
    rows.insert(0, ("would run", "seeds", "each", "because"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in rows
    ]
    if any(_only_code(reason) for reason in found):
        lines.append(
            "Where only code has changed, `make accept` keeps the runs that it leaves alike."
        )
    return [*lines, _in_all(found, cores)]


def _only_code(reason: Reason) -> bool:
    return len(reason.causes) > 0 and all(cause.startswith(CODE) for cause in reason.causes)


def _width(run: Run) -> int:
    """How many cores a job keeps busy."""
    return run.settings.get("threads", 1) * run.settings.get("devices", 1)


def _in_all(found: list[Reason], cores: int) -> str:
    known = {reason.run.folder: reason.seconds for reason in found if reason.seconds is not None}
    unknown = len(found) - len(known)
    chains: dict[str, float] = {}
    for reason in found:  # parents come first
        before = max((chains.get(p.folder, 0.0) for p in reason.run.parents.values()), default=0.0)
        chains[reason.run.folder] = before + known.get(reason.run.folder, 0.0)
    width = {reason.run.folder: _width(reason.run) for reason in found}
    work = sum(seconds * width[folder] for folder, seconds in known.items())
    seconds = max([work / cores, *chains.values()])
    if not found:
        return "the report alone"
    text = f"{len(found)} runs, about {duration(seconds)} on {cores} cores"
    if not known:
        text = f"{len(found)} runs; how long they take is not known before some are made"
    elif unknown:
        text += f", and {unknown} of which no earlier run tells"
    return text


def _seeds(group: list[Reason]) -> str:
    seeds = [reason.run.seed for reason in group if reason.run.seed is not None]
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}-{seeds[-1]}"
    return ",".join(map(str, seeds)) if len(seeds) < 8 else f"{len(seeds)} of them"


def _each(group: list[Reason]) -> str:
    known = [reason.seconds for reason in group if reason.seconds is not None]
    return duration(statistics.mean(known)) if known else "?"


def _in_full(run: Run, reason: Reason | None) -> Iterator[str]:
    yield f"{run.title}: {run.folder}"
    if reason is None:
        trouble = records.trouble(Path(run.folder))
        yield f"  {trouble or 'complete'}; would not run"
        return
    yield from (f"  because {cause}" for cause in reason.causes)
    if compared := _nearest(run):
        yield f"  compared with {compared[0]}"
    took = "not known" if reason.seconds is None else f"about {duration(reason.seconds)}"
    yield f"  it will take: {took}"


def _causes(run: Run, wanted: Mapping[str, str]) -> Iterator[str]:
    if Path(run.record).exists():
        again = [parent for parent in run.parents.values() if parent.folder in wanted]
        yield from (f"its parent {_name(parent)} is made again" for parent in again)
        if not again:
            yield wanted[run.folder] or "one of its files is gone"
        return
    folder = Path(run.folder)
    if failed := records.failure(folder):
        yield f"it did not end: {failed['reason']}"
    elif (folder / records.RESUME).exists():
        again = ", and goes on from its last checkpoint" if "steps" in run.settings else ""
        yield f"it was killed{again}"
    nearest = _nearest(run)
    if nearest is not None:
        yield from _differences(run, nearest[1])
    elif not failed and not (folder / records.RESUME).exists():
        others = records.made(run.stage, run.name)
        yield "this seed was never made, or is gone" if others else "it was never made"


def _nearest(run: Run) -> tuple[Path, dict[str, Any]] | None:
    """The complete run of the same stage, name and seed that differs least, the latest of those."""
    ranked = []
    for folder, record in records.readable(records.made(run.stage, run.name).get(run.seed, [])):
        count = len(list(_differences(run, record)))
        ranked.append((-count, record["finished"], str(folder), record))
    if not ranked:
        return None
    *_, nearest, record = max(ranked, key=lambda entry: entry[:3])
    return Path(nearest), record


def _differences(run: Run, record: dict[str, Any]) -> Iterator[str]:
    """What is another now than it was when a run was made: settings, files, parents."""
    old, new = _flat(record["settings"]), _flat(run.settings)
    for key in sorted(old.keys() | new.keys()):
        before, after = (values.get(key, "none") for values in (old, new))
        if before != after:
            yield f"{key}: {before} -> {after}"
    before, after = record["code"], identity.code(*identity.modules(run.stage, run.settings))
    files = [f for f in sorted(before.keys() | after.keys()) if before.get(f) != after.get(f)]
    if files:
        named = ", ".join(f"{CODE}{file}" for file in files[:NAMED])
        more = f" and {len(files) - NAMED} more" if len(files) > NAMED else ""
        yield f"{named}{more} changed"
    for role in sorted(record["parents"].keys() | run.parents.keys()):
        parent, earlier = run.parents.get(role), record["parents"].get(role, {}).get("digest")
        if parent is None:
            yield f"its parent {role} was dropped"
        elif parent.digest != earlier:
            yield f"its parent {_name(parent)} changed"


def _name(run: Run) -> str:
    return f"{run.stage}/{run.name}"


def _flat(settings: Any, place: tuple[str, ...] = ()) -> dict[str, Any]:
    if not isinstance(settings, dict):
        return {".".join(place): settings}
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, (*place, key))
    return flat


def of_report(plan: Plan, wanted: Mapping[str, str]) -> str | None:
    """Why the report would be made; None where nothing but Snakemake knows a reason.

    Args:
        wanted: the folders of the runs that would be made.
    """
    if any(run.folder in wanted for run in plan.runs):
        return "runs are made"
    if not Path(plan.folder, "index.html").exists():
        return "its page is not there"
    try:
        made = records.read(Path(plan.folder))
    except FileNotFoundError:
        return "it was never made, or runs were missing in it"
    except records.CorruptRecord as error:
        return str(error)
    if made["digest"] == plan.digest:
        return None
    if made["parents"] != {run.folder: run.digest for run in plan.runs}:
        return "runs changed"
    return "the study's report section or the code of the report changed"


class _Forecast:
    """How long runs will take, from records of the same stage and, where there are, name."""

    def __init__(self) -> None:
        self.known: dict[str, list[dict[str, Any]]] = {}

    def seconds(self, run: Run) -> float | None:
        """The median of earlier runs, their training scaled to this run's number of steps."""
        earlier = self._records(f"{run.stage}/{run.name}") or self._records(f"{run.stage}/*")
        return statistics.median(_scaled(run, record) for record in earlier) if earlier else None

    def _records(self, pattern: str) -> list[dict[str, Any]]:
        if pattern not in self.known:
            paths = islice(Path("results").glob(f"{pattern}/*/record.json"), SAMPLE)
            self.known[pattern] = [record for _, record in records.readable(paths)]
        return self.known[pattern]


def _scaled(run: Run, record: dict[str, Any]) -> float:
    seconds = record["seconds"]
    steps = run.settings.get("steps", 1) / record["settings"].get("steps", 1)
    growing = sum(seconds[phase] for phase in ("train", "data_wait", "validate", "checkpoint"))
    return seconds["wall"] - seconds["wasted"] + growing * (steps - 1)


if __name__ == "__main__":
    from jsonargparse import auto_cli  # here, since the workflow imports this module as well

    auto_cli(explain, as_positional=False)
