"""`assay adopt`: keep complete runs after a change of code that does not change their results."""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from assay.commands import cli, replay, verify
from assay.commands.cli import Answer
from assay.devices import cpu
from assay.runs import identity, locks, records
from assay.study.plan import STAGES, Plan, Run


@dataclass(frozen=True)
class Outcome:
    """Whether a run was adopted, and how or why not."""

    run: Run
    adopted: bool
    reason: str


def adopt(study: Path, run: str | None = None, intervals: int = 2) -> Answer:
    """Keep complete runs if only their code changed and it still gives the same bytes.

    Each is started again with the new code in a temporary folder. If the weights and metrics after
    each of the first validation intervals equal the recorded ones, the run is adopted: its files
    are linked into the folder of its new hash. Prepared data and evaluations are replayed in full.

    Args:
        study: the study's file.
        run: a stage, an experiment or a run; None selects all. Parents are adopted first.
        intervals: how many to replay. A change that acts only later is not detected.
    """
    plan = cli.read(study)
    pending = [r for r in cli.select(plan, run) if not Path(r.record).exists()]
    outcomes: list[Outcome] = []
    with cli.exclusive():
        for outcome in _outcomes(plan, pending, intervals):
            cli.progress(f"{outcome.run.title}: {outcome.reason}")
            outcomes.append(outcome)
    adopted = sum(outcome.adopted for outcome in outcomes)
    line = f"{adopted} of {len(pending)} runs adopted; snakemake runs the others."
    if not pending:
        line = "Nothing to adopt: these runs are complete with the current code."
    data = [{**cli.describe(o.run), "adopted": o.adopted, "reason": o.reason} for o in outcomes]
    return Answer([line], {"study": plan.name, "runs": data}, int(adopted < len(pending)))


def _outcomes(plan: Plan, pending: list[Run], intervals: int) -> Iterator[Outcome]:
    """Replay and adopt stage by stage, because children need their parents under the new hash."""
    width = plan.study.threads * plan.study.devices
    parallel = 1 if plan.study.device == "gpu" else max(1, cpu.available() // width)
    execution = {**plan.execution, "intervals": intervals}
    for stage in STAGES:
        with ThreadPoolExecutor(parallel) as pool:
            group = [run for run in pending if run.stage == stage]
            yield from pool.map(partial(_adopt_run, execution=execution), group)


def _adopt_run(run: Run, execution: dict[str, Any]) -> Outcome:
    missing = [parent.title for parent in run.parents.values() if not Path(parent.record).exists()]
    if missing:
        return Outcome(run, False, f"not adopted: its parent {missing[0]} is incomplete")
    earlier = _earlier(run)
    if earlier is None:
        return Outcome(run, False, "not adopted: no complete run differs from it only in code")
    folder, record = earlier
    try:
        replayed = _replayed_part(run, folder, execution["intervals"])
        with replay.rerun(run, execution) as fresh:
            found = list(_differences(run, folder, fresh, execution["intervals"]))
        if found:
            return Outcome(run, False, f"not adopted: differs from {folder}: {'; '.join(found)}")
        _adopt(run, folder, record, replayed)
    except replay.ReplayError as error:
        return Outcome(run, False, f"not adopted: the new code fails: {error}")
    except (OSError, records.CorruptRecord) as error:
        return Outcome(run, False, f"not adopted: {error}")
    return Outcome(run, True, f"adopted from {folder}, {replayed} replayed")


def _replayed_part(run: Run, folder: Path, intervals: int) -> str:
    if not replay.is_training(run):
        return "all of it"
    count = len(replay.history(folder))
    return f"{min(intervals, count)} of {count} validation intervals"


def _earlier(run: Run) -> tuple[Path, dict[str, Any]] | None:
    """Return the latest complete run that differs from this one, and its parents, only in code."""
    found = [
        (folder, record)
        for folder, record in records.readable(records.find(run.stage, run.name).get(run.seed, []))
        if record["settings"] == run.settings and _same_parents(run, record)
    ]
    return max(found, key=lambda one: (one[1]["finished"], str(one[0])), default=None)


def _same_parents(run: Run, record: dict[str, Any]) -> bool:
    """Return whether the parents in a record are a run's own, or were adopted as these."""
    if run.parents.keys() != record["parents"].keys():
        return False
    return all(
        record["parents"][role]["digest"] in _digests(parent)
        for role, parent in run.parents.items()
    )


def _digests(run: Run) -> set[str]:
    """Return a complete run's hash, and the hashes that it was adopted from."""
    record = records.read(Path(run.folder))
    return {run.digest, *(entry["digest"] for entry in record.get("adopted", []))}


def _differences(run: Run, before: Path, fresh: Path, intervals: int) -> Iterator[str]:
    """Describe how the replayed part of a run differs from the earlier run."""
    if not replay.is_training(run) or intervals >= len(replay.history(before)):
        yield from replay.differences(before, fresh)
        return
    yield from replay.history_differences(before, fresh, intervals)
    old, new = records.read(before), records.read(fresh)
    for kind in ("files", "metrics"):
        yield from replay.only_in_one(kind, old[kind], new[kind])
    yield from replay.entry_differences(old, new)
    # The replay must have kept the weights that the old code would keep after these intervals.
    expected = verify.training_metrics(fresh, old["monitor"])
    if "weights" in expected:
        yield f"the weights that it keeps are {expected['weights']}"
        return
    types = {name: type(value) for name, value in new["metrics"].items()}
    of_history = {name: types[name](expected[name]) for name in types.keys() & expected.keys()}
    constant = {name: old["metrics"][name] for name in old["metrics"].keys() - expected.keys()}
    yield from replay.metric_differences(constant | of_history, new["metrics"])


def _adopt(run: Run, earlier: Path, record: dict[str, Any], replayed: str) -> None:
    """Link the files of an earlier run into the folder of the new hash, and write a record."""
    folder = Path(run.folder)
    with locks.hold(folder / records.LOCK, cli.progress):
        for name in record["files"]:
            _link(records.verified(earlier, record, name), folder / name)
        for name in records.UNHASHED - {records.RECORD, records.FAILURE}:
            if (earlier / name).exists():
                shutil.copyfile(earlier / name, folder / name)
        records.write(folder, _adopted_record(run, earlier, record, replayed))
        shutil.rmtree(folder / records.RESUME)
        for path in folder.iterdir():
            path.touch()  # Snakemake has no metadata of it, and expects it newer than its parents


def _adopted_record(
    run: Run, earlier: Path, record: dict[str, Any], replayed: str
) -> dict[str, Any]:
    adoption = {
        "folder": str(earlier),
        "digest": record["digest"],
        "replayed": replayed,
        "on": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    parents = {
        role: {**record["parents"][role], "folder": parent.folder, "digest": parent.digest}
        for role, parent in run.parents.items()
    }
    changed = {
        "digest": run.digest,
        "parents": parents,
        "code": identity.code_hashes(*identity.modules(run.stage, run.settings)),
        "adopted": [*record.get("adopted", []), adoption],
    }
    return {k: v for k, v in record.items() if k not in ("checksum", "files")} | changed


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
