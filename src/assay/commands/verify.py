"""Verify: derive each number of a report again, from the runs' records and files."""

import csv
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from assay import report
from assay.commands import cli, replay
from assay.runs import artifacts, atomic_files, identity, records
from assay.runs.artifacts import HISTORY, PREDICTIONS, WEIGHTS
from assay.runs.data_info import DataInfo
from assay.study.plan import Plan, Run

PARTS = ("*.csv", "*.tex", "*.json", "*.html", "*.svg", "*.pdf")


def verify(study: Path = Path("config.yaml"), replay: str | None = None) -> None:
    """Check every digest down the chain, and derive each number of the study's report again.

    Ends with exit code 1 where anything is not as it should be.

    Args:
        study: the study's file.
        replay: make these runs again from scratch and compare all bytes: a stage, an experiment,
            or a path such as `finetune/scratch_few/seed0`.
    """
    plan = cli.read(study)
    again = cli.chosen(plan, replay) if replay else []
    found = list(problems(plan))
    found += [problem for run in again for problem in _replayed(run)]
    for problem in found:
        print(problem)
    if found:
        sys.exit(f"{len(found)} of the checks of {plan.folder} failed.")
    values = len(_written(Path(plan.folder)))
    print(
        f"{plan.folder}: {values} files derived again from {len(plan.runs)} runs, whose digests, "
        "files, weights and metrics are as they were recorded."
    )


def problems(plan: Plan) -> Iterator[str]:
    """All that is not as it should be, parents first."""
    found = [problem for run in plan.runs for problem in of_run(run)]
    yield from found
    if not Path(plan.folder, "index.html").is_file():
        yield f"{plan.folder}/index.html: there is no page; run snakemake"
    else:
        yield from of_report(plan)


def of_run(run: Run) -> Iterator[str]:
    """What of a run's record and files contradicts its digests or itself."""
    folder = Path(run.folder)
    try:
        record = records.read(folder)
    except FileNotFoundError:
        yield f"{folder}: {records.why_incomplete(folder)}"
        return
    except (OSError, records.CorruptRecord) as error:
        yield str(error)
        return
    for name in sorted({*record["files"], *run.files} - {records.RECORD}):
        try:
            records.intact(folder, record, name)
        except records.CorruptRecord as error:
            yield str(error)
            return
    yield from (f"{folder}: {problem}" for problem in _identity(run, record))
    try:
        yield from (f"{folder}: {problem}" for problem in _contents(run, record))
    except Exception as error:  # whatever files of another making may hold
        what = f"{type(error).__name__}: {error}"
        yield f"{folder}: what its record says cannot be derived from its files ({what})"


def _contents(run: Run, record: dict[str, Any]) -> Iterator[str]:
    """Where the metrics of a run's record do not follow from its files."""
    if run.stage == "prepare":
        return
    if run.stage == "evaluate":
        found = _evaluation(run)
        yield from _other_examples(run)
    else:
        found = of_training(Path(run.folder), record["monitor"])
    for name, value in found.items():
        if (name in record["metrics"] and record["metrics"][name] != value) or name == "weights":
            stated = record["metrics"].get(name)
            yield f"{name} is {value} in its files and {stated} in its record"


def of_report(plan: Plan) -> Iterator[str]:
    """Where a report differs from one that is made now from the same runs."""
    folder = Path(plan.folder)
    try:
        if records.read(folder)["digest"] != plan.digest:
            yield f"{folder}: was made by another study or other code; run snakemake"
            return
    except FileNotFoundError:
        if all(Path(run.record).exists() for run in plan.runs):
            yield f"{folder}: was not finished; run snakemake"
    except records.CorruptRecord as error:
        yield str(error)
    with tempfile.TemporaryDirectory(prefix="assay-") as temporary:
        fresh = Path(temporary, plan.name)
        settings = json.loads(identity.canonical(plan.study))  # as the workflow hands them over
        report.write(Plan(settings), fresh, None, partial=True)
        there, now = _written(folder), _written(fresh)
        for name in sorted(there | now):
            if name not in there:
                yield f"{folder / name} is missing; run snakemake"
            elif name not in now:
                yield f"{folder / name} is no part of the report"
            elif atomic_files.sha256(folder / name) != atomic_files.sha256(fresh / name):
                yield f"{folder / name}: {_first_difference(folder / name, fresh / name)}"


def _identity(run: Run, record: dict[str, Any]) -> Iterator[str]:
    """Whether a record holds together: its digest is that of what it says it was made from."""
    parents = {role: parent["digest"] for role, parent in record["parents"].items()}
    content = {name: record[name] for name in ("stage", "settings", "seed")}
    code = identity.digest(record["code"])
    if identity.digest({**content, "code": code, "parents": parents}) != record["digest"]:
        yield "its digest is not that of its settings, code, parents and seed"
    stated = {name: record.get(name) for name in ("stage", "name", "seed", "digest", "status")}
    planned = {name: getattr(run, name) for name in ("stage", "name", "seed", "digest")}
    for name, value in {**planned, "status": "complete"}.items():
        if stated[name] != value:
            yield f"its {name} is {value}, and {stated[name]} in its record"
    if parents != {role: parent.digest for role, parent in run.parents.items()}:
        yield "its record names other parents"
        return
    for role, parent in run.parents.items():
        if record["parents"][role]["folder"] != parent.folder:
            yield f"its record names another folder of its {role}"
        if records.trouble(Path(parent.folder)):
            continue  # which is told where the parent is looked at
        held = records.read(Path(parent.folder))["files"]
        for name, digest in record["parents"][role].get("files", {}).items():
            if held.get(name) != digest:
                yield f"it was made from another {parent.folder}/{name}: make it again"


def of_training(folder: Path, monitor: dict[str, str]) -> dict[str, Any]:
    """The metrics of a training, from its history and weights.

    Args:
        monitor: the `metric` that chooses the weights, and its `mode`.

    Returns:
        The row of the best validation; `weights` stands in it only where others were kept.
    """
    from safetensors.torch import load_file

    from assay.training.callbacks import digest

    with Path(folder, HISTORY).open(newline="") as file:
        rows = list(csv.DictReader(file))
    better = {"max": max, "min": min}[monitor["mode"]]
    best = better(rows, key=lambda row: float(row[monitor["metric"]]))
    kept = digest(load_file(Path(folder, WEIGHTS)))
    if kept != best["weights"]:
        return {"weights": f"{kept}, and not those of the best validation, {best['weights']},"}
    return {
        name: float(value)
        for name, value in best.items()
        if name != "weights" and not name.endswith(replay.UNTIMED)
    }


def _other_examples(run: Run) -> Iterator[str]:
    """Whether a table of predictions is of the test examples: those columns that the data has."""
    import numpy as np
    from safetensors.numpy import load_file

    from assay.evaluate import read_predictions

    test = load_file(Path(run.parents["data"].folder, artifacts.split("test")))
    if "tokens" in test and test["tokens"].ndim == 1:
        return  # a stream, which the model cuts into examples
    for name, column in read_predictions(Path(run.folder, PREDICTIONS)).items():
        if len(column) != len(next(iter(test.values()))):
            yield f"{PREDICTIONS} has {len(column)} rows, and not one per test example"
            return
        if name in test and test[name].ndim == 1 and not np.array_equal(test[name], column):
            yield f"{PREDICTIONS} has another {name} than the test examples"


def _evaluation(run: Run) -> dict[str, Any]:
    """The metrics of an evaluation, from its table of predictions."""
    from assay.evaluate import read_predictions
    from assay.training import fit

    info = DataInfo.from_record(records.read(Path(run.parents["data"].folder))["info"])
    objective = fit.build(run.settings, info, run.seed)
    return objective.metrics(read_predictions(Path(run.folder, PREDICTIONS)))


def _replayed(run: Run) -> Iterator[str]:
    print(f"{run.folder}: is made again", flush=True)
    try:
        with replay.made(run) as fresh:
            found = list(replay.differences(Path(run.folder), fresh))
            made_with = _other_environment(Path(run.folder), fresh) if found else ""
            yield from (f"{run.folder}: made again, {each}{made_with}" for each in found)
    except replay.Failed as error:
        yield f"{run.folder}: could not be made again: {error}"


def _other_environment(before: Path, after: Path) -> str:
    """What differs between the machines or packages of two runs, which may explain other bytes."""
    old, new = (records.read(folder) for folder in (before, after))
    old, new = ({**r["environment"]["packages"], "device": r["device"]["name"]} for r in (old, new))
    other = [
        f"{name} {old.get(name)} -> {new.get(name)}" for name in new if old.get(name) != new[name]
    ]
    return f" (made with {', '.join(other)})" if other else ""


def _written(folder: Path) -> set[str]:
    found = {path for pattern in PARTS for path in folder.rglob(pattern)}
    return {path.relative_to(folder).as_posix() for path in found} - {records.RECORD}


def _first_difference(there: Path, now: Path) -> str:
    try:
        old, new = (path.read_text().splitlines() for path in (there, now))
    except UnicodeDecodeError:
        return "has other bytes than the runs give"
    for number, (first, second) in enumerate(zip(old, new, strict=False), 1):
        if first != second:
            return f"line {number} says {_short(first)}, the runs give {_short(second)}"
    return f"has {len(old)} lines, the runs give {len(new)}"


def _short(text: str) -> str:
    return repr(text.strip()[:100])


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(verify, as_positional=False)
