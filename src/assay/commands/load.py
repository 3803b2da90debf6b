"""`assay.load`: the results of a study as a pandas DataFrame."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from assay.commands import cli
from assay.commands.reasons import flatten
from assay.reporting import tables
from assay.runs import records
from assay.study.plan import Plan
from assay.study.schema import Study
from assay.study.structure import plain

INTERNAL = ["conditions"]  # columns of the report's results that only the report uses


def load(study: str | Path) -> pd.DataFrame:
    """Return a row per experiment and seed; `assay.load` documents the arguments and columns."""
    path = Path(study)
    root = _root(path)
    path = Path(path.resolve().relative_to(root)) if root and path.exists() else path
    with contextlib.chdir(root or Path.cwd()):
        found = [tables.collect(plan) for plan in _plans(path)]
    # `device: auto` may mean another device here than where the runs were made.
    return _tidy(max(found, key=lambda one: len(one.records)))


def _root(path: Path) -> Path | None:
    """Return the nearest folder, from a path or this folder upwards, that contains results/."""
    start = path.resolve() if path.exists() else Path.cwd()
    return next((each for each in (start, *start.parents) if (each / "results").is_dir()), None)


def _plans(path: Path) -> Iterator[Plan]:
    """Yield the plans of a study for each device, the present one first."""
    study = _study(path)
    others = [device for device in ("cpu", "gpu") if device != study.device]
    yield from (Plan(replace(study, device=device)) for device in (study.device, *others))


def _study(path: Path) -> Study:
    """Return the study of a file, a report folder or a name.

    Raises:
        CommandError: there is none; the message suggests a name.
    """
    if path.is_file():
        return cli.read_study(path)
    files = {name: file for file in cli.study_files() if (name := _name(file))}
    reports = {
        folder.parent.name: folder.parent for folder in Path("reports").glob("*/record.json")
    }
    if path.is_dir() and (path / records.RECORD).exists():
        return Study.from_dict(records.read(path)["settings"])
    name = path.name
    if name in files:
        return cli.read_study(files[name])
    if name in reports:
        return Study.from_dict(records.read(reports[name])["settings"])
    raise cli.CommandError(
        f"{path}: no study file, report folder or name of a study"
        f"{cli.suggestion(name, [*files, *reports])}"
    )


def _name(file: Path) -> str | None:
    """Return the name of a file's study; None for a file that is no study."""
    with contextlib.suppress(OSError, ValueError, yaml.YAMLError):
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        return content.get("study") if isinstance(content, dict) else None


def _tidy(found: tables.Tables) -> pd.DataFrame:
    """Return the report's results with the settings in which experiments differ, and hashes."""
    results = found.results.drop(columns=INTERNAL, errors="ignore")
    results = results.sort_values(["experiment", "seed"], ignore_index=True)
    settings = {name: flatten(plain(entry)) for name, entry in found.study.experiments.items()}
    keys = [
        key
        for key in sorted({key for entry in settings.values() for key in entry})
        if key not in results and len({repr(entry.get(key)) for entry in settings.values()}) > 1
    ]
    for column, key in enumerate(keys, start=2):
        values = [_plain(settings[name].get(key)) for name in results["experiment"]]
        results.insert(column, key, values)
    results["hash"] = results["evaluate_folder"].str.rpartition("-")[2]
    return results


def _plain(value: Any) -> Any:
    """Return a value that pandas can group by: lists become text."""
    return ", ".join(map(str, value)) if isinstance(value, list) else value
