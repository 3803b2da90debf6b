"""`assay verify`: check the hashes of a study's runs, and derive each number of its report."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from assay.commands import cli, replay
from assay.commands.cli import Answer
from assay.runs import artifacts, atomic_files, identity, records
from assay.runs.artifacts import PREDICTIONS, WEIGHTS
from assay.runs.data_info import DataInfo
from assay.study.plan import Plan, Run
from assay.study.schema import Study

REPORT_FILES = ("*.csv", "*.tex", "*.json", "*.html", "*.svg", "*.pdf")
SHOWN_CHARACTERS = 100


def verify(study: Path, replay: str | None = None) -> Answer:
    """Check the records, files and metrics of all runs, and compare the report with a new one.

    Args:
        study: the study's file.
        replay: a stage, an experiment or a run to run again from scratch, to compare all bytes.
    """
    plan = cli.read(study)
    repeated = cli.select(plan, replay) if replay else []
    found = [
        *(problem for run in plan.runs for problem in check_run(run)),
        *check_report(plan),
        *(problem for run in repeated for problem in check_replay(run, plan.execution)),
    ]
    files = len(_report_files(Path(plan.folder)))
    summary = (
        f"{len(found)} checks of {plan.folder} failed."
        if found
        else f"{plan.folder}: all {files} files follow from the {len(plan.runs)} runs; the hashes, "
        "files, weights and metrics of these are as recorded."
    )
    counts = {"runs": len(plan.runs), "replayed": len(repeated), "files": files}
    data = {"study": plan.name, "report": plan.folder, **counts, "problems": found}
    return Answer([*found, summary], data, int(bool(found)))


def check_run(run: Run) -> Iterator[str]:
    """Describe where a run's record contradicts itself, the plan, or the run's files."""
    folder = Path(run.folder)
    try:
        record = records.read(folder)
        for name in sorted({*record["files"], *run.files} - {records.RECORD}):
            records.verified(folder, record, name)
    except FileNotFoundError:
        yield f"{folder}: {records.why_incomplete(folder)}"
        return
    except (OSError, records.CorruptRecord) as error:
        yield str(error)
        return
    yield from (f"{folder}: {problem}" for problem in _check_record(run, record))
    try:
        yield from (f"{folder}: {problem}" for problem in _check_metrics(run, record))
    except Exception as error:  # files that another program wrote may contain anything
        what = f"{type(error).__name__}: {error}"
        yield f"{folder}: its metrics cannot be derived from its files ({what})"


def _check_record(run: Run, record: dict[str, Any]) -> Iterator[str]:
    """Describe where a record contradicts its own hash or the plan."""
    parents = {role: parent["digest"] for role, parent in record["parents"].items()}
    content = {name: record[name] for name in ("stage", "settings", "seed")}
    code = identity.hash_of(record["code"])
    if identity.hash_of({**content, "code": code, "parents": parents}) != record["digest"]:
        yield "its hash is not that of its settings, code, parents and seed"
    planned = {name: getattr(run, name) for name in ("stage", "name", "seed", "digest")}
    for name, value in {**planned, "status": "complete"}.items():
        if record.get(name) != value:
            yield f"its {name} is {value}, but its record says {record.get(name)}"
    if parents != {role: parent.digest for role, parent in run.parents.items()}:
        yield "its record names other parents"
        return
    for role, parent in run.parents.items():
        yield from _check_parent(role, parent, record["parents"][role])


def _check_parent(role: str, parent: Run, recorded: dict[str, Any]) -> Iterator[str]:
    if recorded["folder"] != parent.folder:
        yield f"its record names another folder of its {role}"
    if records.problem(Path(parent.folder)):
        return  # reported by the check of the parent
    files = records.read(Path(parent.folder))["files"]
    for name, digest in recorded.get("files", {}).items():
        if files.get(name) != digest:
            yield f"it used other bytes of {parent.folder}/{name}: delete its folder to rerun it"


def _check_metrics(run: Run, record: dict[str, Any]) -> Iterator[str]:
    """Describe which metrics of a record do not follow from the run's files."""
    if run.stage == "prepare":
        return
    if run.stage == "evaluate":
        derived = _evaluation_metrics(run)
        yield from _check_examples(run)
    else:
        derived = training_metrics(Path(run.folder), record["monitor"])
    recorded = record["metrics"]
    for name, value in derived.items():
        if name == "weights" or (name in recorded and recorded[name] != value):
            yield f"{name} is {value} in its files, but {recorded.get(name)} in its record"


def training_metrics(folder: Path, monitor: dict[str, str]) -> dict[str, Any]:
    """Derive the metrics of a training from its history and weights.

    Args:
        monitor: the `metric` that selects the weights, and its `mode`.

    Returns:
        The row of the best validation; `weights` is in it only if the saved weights are others.
    """
    from safetensors.torch import load_file

    from assay.training.history import hash_weights

    rows = replay.history(folder)
    best = {"max": max, "min": min}[monitor["mode"]](
        rows, key=lambda row: float(row[monitor["metric"]])
    )
    saved = hash_weights(load_file(Path(folder, WEIGHTS)))
    if saved != best["weights"]:
        return {"weights": f"{saved}, and not those of the best validation, {best['weights']},"}
    return {
        name: float(value)
        for name, value in best.items()
        if name != "weights" and not name.endswith(replay.TIMES)
    }


def _evaluation_metrics(run: Run) -> dict[str, Any]:
    """Derive the metrics of an evaluation from its predictions."""
    from assay.evaluate import read_predictions
    from assay.training import fit

    info = DataInfo.from_record(records.read(Path(run.parents["data"].folder))["info"])
    objective = fit.build(run.settings["model"], run.settings["objective"], info, run.seed)
    return objective.metrics(read_predictions(Path(run.folder, PREDICTIONS)))


def _check_examples(run: Run) -> Iterator[str]:
    """Describe where predictions are of other examples than the test split's."""
    import numpy as np
    from safetensors.numpy import load_file

    from assay.evaluate import read_predictions

    test = load_file(Path(run.parents["data"].folder, artifacts.split_file("test")))
    if "tokens" in test and test["tokens"].ndim == 1:
        return  # a stream of tokens, which the model cuts into examples
    for name, column in read_predictions(Path(run.folder, PREDICTIONS)).items():
        if len(column) != len(next(iter(test.values()))):
            yield f"{PREDICTIONS} has {len(column)} rows, which is not one per test example"
            return
        if name in test and test[name].ndim == 1 and not np.array_equal(test[name], column):
            yield f"{PREDICTIONS} has another {name} than the test examples"


def check_report(plan: Plan) -> Iterator[str]:
    """Describe where a report differs from a new one of the same runs."""
    folder = Path(plan.folder)
    if not (folder / "index.html").is_file():
        yield f"{folder}/index.html: is missing; run snakemake"
        return
    try:
        if records.read(folder)["digest"] != plan.digest:
            yield f"{folder}: is of another study or other code; run snakemake"
            return
    except FileNotFoundError:
        if all(Path(run.record).exists() for run in plan.runs):
            yield f"{folder}: is incomplete; run snakemake"
    except records.CorruptRecord as error:
        yield str(error)
    with tempfile.TemporaryDirectory(prefix="assay-") as temporary:
        fresh = Path(temporary, plan.name)
        _write_report(plan, fresh)
        yield from _compare(folder, fresh)


def _write_report(plan: Plan, folder: Path) -> None:
    from assay import report

    settings = json.loads(identity.canonical(plan.report_settings))  # as the workflow passes them
    report.write(Plan(Study.from_dict(settings)), folder, None, partial=True)


def _compare(folder: Path, fresh: Path) -> Iterator[str]:
    present, expected = _report_files(folder), _report_files(fresh)
    for name in sorted(present | expected):
        if name not in present:
            yield f"{folder / name} is missing; run snakemake"
        elif name not in expected:
            yield f"{folder / name} is not part of the report"
        elif atomic_files.sha256(folder / name) != atomic_files.sha256(fresh / name):
            yield f"{folder / name}: {_first_difference(folder / name, fresh / name)}"


def _report_files(folder: Path) -> set[str]:
    found = {path for pattern in REPORT_FILES for path in folder.rglob(pattern)}
    return {path.relative_to(folder).as_posix() for path in found} - {records.RECORD}


def _first_difference(path: Path, fresh: Path) -> str:
    try:
        old, new = (each.read_text().splitlines() for each in (path, fresh))
    except UnicodeDecodeError:
        return "has other bytes than the runs give"
    for number, (first, second) in enumerate(zip(old, new, strict=False), 1):
        if first != second:
            return f"line {number} is {_shown(first)}, the runs give {_shown(second)}"
    return f"has {len(old)} lines, the runs give {len(new)}"


def _shown(text: str) -> str:
    return repr(text.strip()[:SHOWN_CHARACTERS])


def check_replay(run: Run, execution: dict[str, Any]) -> Iterator[str]:
    """Run a job again from scratch, and describe how its files differ from the recorded ones."""
    cli.progress(f"{run.folder}: replaying")
    folder = Path(run.folder)
    try:
        with replay.rerun(run, execution) as fresh:
            found = list(replay.differences(folder, fresh))
            machine = _other_environment(folder, fresh) if found else ""
            yield from (f"{folder}: its replay differs: {each}{machine}" for each in found)
    except replay.ReplayError as error:
        yield f"{folder}: its replay failed: {error}"
    except (OSError, records.CorruptRecord) as error:
        yield f"{folder}: cannot be replayed: {error}"


def _other_environment(before: Path, after: Path) -> str:
    """Describe how the device and packages of two runs differ, which may explain other bytes."""
    old, new = (
        {**record["environment"]["packages"], "device": record["device"]["name"]}
        for record in map(records.read, (before, after))
    )
    changed = [
        f"{name} {old.get(name)} -> {new[name]}" for name in new if old.get(name) != new[name]
    ]
    return f" (the run had {', '.join(changed)})" if changed else ""
