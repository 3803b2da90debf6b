"""Why a run is due: what changed since its most similar earlier run, or what is missing."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.commands.forecast import Forecast
from assay.runs import identity, records
from assay.study.plan import Plan, Run

CODE = "src/"  # how a cause begins that is a change of code
FILES_SHOWN = 3


@dataclass(frozen=True)
class Reason:
    """Why a run is due.

    Attributes:
        causes: what differs from the most similar earlier run, or why there is none.
        seconds: how long it will take, predicted from earlier runs; None without any.
    """

    run: Run
    causes: tuple[str, ...]
    seconds: float | None


def due(plan: Plan) -> dict[str, str]:
    """Return the folders of the runs that are incomplete, or whose parents are; parents first.

    The values are ""; a caller may replace them by reasons that only Snakemake knows.
    """
    found: dict[str, str] = {}
    for run in plan.runs:
        stale = any(parent.folder in found for parent in run.parents.values())
        if stale or not all(Path(run.folder, name).exists() for name in run.files):
            found[run.folder] = ""
    return found


def reasons(plan: Plan, due: Mapping[str, str]) -> list[Reason]:
    """Return why each of some runs is due.

    Args:
        due: their folders, each with a reason that only the caller knows, or "".
    """
    forecast = Forecast()
    return [
        Reason(run, tuple(_causes(run, due)), forecast.seconds(run))
        for run in plan.runs
        if run.folder in due
    ]


def report_reason(plan: Plan, due: Mapping[str, str]) -> str | None:
    """Return why the report is due; None if it is not, as far as files show.

    Args:
        due: the folders of the runs that are due.
    """
    if any(run.folder in due for run in plan.runs):
        return "it depends on runs that are due"
    if not Path(plan.folder, "index.html").exists():
        return "index.html is missing"
    try:
        record = records.read(Path(plan.folder))
    except FileNotFoundError:
        return "it is incomplete"
    except records.CorruptRecord as error:
        return str(error)
    if record["digest"] == plan.digest:
        return None
    if record["parents"] != {run.folder: run.digest for run in plan.runs}:
        return "the runs of the study changed"
    return "the study's report section or the code of the report changed"


def _causes(run: Run, due: Mapping[str, str]) -> Iterator[str]:
    if Path(run.record).exists():
        stale = [parent for parent in run.parents.values() if parent.folder in due]
        yield from (f"its parent {_name(parent)} runs again" for parent in stale)
        if not stale:
            yield due[run.folder] or "one of its files is missing"
        return
    folder = Path(run.folder)
    failure, killed = records.read_failure(folder), (folder / records.RESUME).exists()
    if failure:
        yield f"it failed: {failure['reason']}"
    elif killed:
        resumes = " and resumes from its last checkpoint" if "steps" in run.settings else ""
        yield f"it was killed{resumes}"
    if earlier := nearest(run):
        yield from differences(run, earlier[1])
    elif not failure and not killed:
        others = records.find(run.stage, run.name)
        yield "this seed has not run yet" if others else "it has not run yet"


def nearest(run: Run) -> tuple[Path, dict[str, Any]] | None:
    """Return the complete run of the same stage, name and seed that differs least; the latest."""
    ranked = [
        (-len(list(differences(run, record))), record["finished"], str(folder), record)
        for folder, record in records.readable(records.find(run.stage, run.name).get(run.seed, []))
    ]
    if not ranked:
        return None
    *_, folder, record = max(ranked, key=lambda entry: entry[:3])
    return Path(folder), record


def differences(run: Run, record: dict[str, Any]) -> Iterator[str]:
    """Describe how a run differs from an earlier run's record: settings, code and parents."""
    old, new = flatten(record["settings"]), flatten(run.settings)
    for key in sorted(old.keys() | new.keys()):
        before, after = (values.get(key, "none") for values in (old, new))
        if before != after:
            yield f"{key}: {before} -> {after}"
    before, after = record["code"], identity.code_hashes(*identity.modules(run.stage, run.settings))
    files = [f for f in sorted(before.keys() | after.keys()) if before.get(f) != after.get(f)]
    if files:
        more = len(files) - FILES_SHOWN
        shown = ", ".join(f"{CODE}{file}" for file in files[:FILES_SHOWN])
        yield f"{shown}{f' and {more} more' if more > 0 else ''} changed"
    for role in sorted(record["parents"].keys() | run.parents.keys()):
        parent, earlier = run.parents.get(role), record["parents"].get(role, {}).get("digest")
        if parent is None:
            yield f"its parent {role} was removed"
        elif parent.digest != earlier:
            yield f"its parent {_name(parent)} changed"


def _name(run: Run) -> str:
    return f"{run.stage}/{run.name}"


def flatten(settings: Any, path: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return nested settings with dotted keys: `{"a": {"b": 1}}` -> `{"a.b": 1}`."""
    if not isinstance(settings, dict):
        return {".".join(path): settings}
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= flatten(value, (*path, key))
    return flat
