"""Reads a study: parses, checks and completes it before anything runs."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from assay.devices import gpus
from assay.study import (
    cross_checks,
    plugin_settings,
    schema,
    signatures,
    structure,
    training_checks,
    validation,
    yaml_source,
)
from assay.study.schema import NO_PRETRAINING, Study
from assay.study.structure import UNKNOWN, Place, Unknown, known
from assay.study.yaml_source import Source

MOST_SEEDS = 10_000
MOST_VALIDATIONS = 10


class StudyError(ValueError):
    """A study that cannot run. The text names the file, each key, its value and the remedy."""


def read(path: Path, changes: dict[str, Any] | None = None) -> Study:
    """Read a study from a YAML file.

    Args:
        path: the file.
        changes: values laid over the file's, key by key, as `snakemake --config` gives them.

    Returns:
        The completed study; its `device` is `cpu` or `gpu`.

    Raises:
        StudyError: with everything that is wrong.
    """
    changes = _typed(changes or {})
    try:
        source = yaml_source.read(path)
    except yaml_source.SourceError as error:
        where = f"{path}, line {error.line}" if error.line else path
        raise StudyError(f"The study cannot run:\n  {where}: {error}") from error
    study = _merge(source.study, changes)
    problems = [*source.problems, *check(study)]
    if problems:
        raise StudyError(_message(path, source, changes, problems))
    study = complete(expanded(study))
    return replace(study, device=gpus.resolve(study.device))


def check(study: dict[str, Any]) -> list[tuple[Place, str]]:
    """Return everything that is wrong with a study as its author wrote it: places and messages."""
    if problem := validation.version(study):
        return [(("schema",), problem)]
    found = list(validation.values(study))
    study = expanded(study)
    for each in (validation.keys, validation.names, validation.chosen_plugins):
        places = {place for place, _ in found}
        found += [(place, what) for place, what in each(study) if place not in places]
        study = _pruned(study, found)
    completed = complete(study)
    found += cross_checks.check(completed)
    found += training_checks.check(completed, study)
    return list(dict.fromkeys(found))


def _pruned(study: dict[str, Any], problems: list[tuple[Place, str]]) -> dict[str, Any]:
    """Return a copy in which values that are wrong or missing are `UNKNOWN`."""
    study = structure.plain(study)
    for place, _ in problems:
        with suppress(KeyError, IndexError, TypeError, Unknown):
            structure.value_at(study, place[:-1])[place[-1]] = UNKNOWN
    return study


def expanded(study: dict[str, Any]) -> dict[str, Any]:
    """Return a copy in which numbers and short forms are written in one way.

    `seeds: 3` becomes `[0, 1, 2]`, `model: cnn` becomes `{name: cnn}`, and 1.0 becomes 1.
    """
    study = {"finetune": {}} | structure.plain(study)
    if isinstance(study["finetune"], dict):
        study["finetune"] = {"objective": schema.OBJECTIVE} | study["finetune"]
    seeds = study.get("seeds")
    if isinstance(seeds, int) and not isinstance(seeds, bool) and 0 < seeds <= MOST_SEEDS:
        study["seeds"] = list(range(seeds))
    for _, place in structure.chosen(study, Study):
        entry = structure.value_at(study, place[:-1])
        if isinstance(entry[place[-1]], str):
            entry[place[-1]] = {"name": entry[place[-1]]}
    return study


def complete(study: dict[str, Any]) -> Study:
    """Add defaults to an expanded study, and make the objects of `schema` of it.

    Values that are `UNKNOWN` make those that follow from them unknown.
    """
    study = structure.plain(study)
    for kind, place in list(structure.chosen(study, Study)):
        entry = structure.value_at(study, place[:-1])
        entry[place[-1]] = plugin_settings.completed(kind, entry[place[-1]])
    study["finetune"] = known(lambda: _training(study["finetune"]))
    study["pretrain"] = known(lambda: _pretrainings(study))
    study["experiments"] = known(lambda: _experiments(study))
    study["report"] = known(
        lambda: _with(study.get("report", {}), "metric", lambda: _metric(study))
    )
    return structure.build(Study, study)


def _pretrainings(study: dict[str, Any]) -> dict[str, Any]:
    return {
        name: known(lambda entry=entry: _training(_with(entry, "model", lambda: study["model"])))
        for name, entry in study.get("pretrain", {}).items()
    }


def _experiments(study: dict[str, Any]) -> dict[str, Any]:
    return {
        name: known(lambda entry=entry: _experiment(study, study["finetune"] | entry))
        for name, entry in study["experiments"].items()
    }


def _experiment(study: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    start = entry.get("pretraining", NO_PRETRAINING)
    found = study if start == NO_PRETRAINING else study["pretrain"].get(start, UNKNOWN)
    return _training(_with(entry, "model", lambda: found["model"]))


def _training(entry: dict[str, Any]) -> dict[str, Any]:
    return _with(entry, "validate_every_steps", lambda: _interval(entry["steps"]))


def _with(entry: dict[str, Any], key: str, default: Callable[[], Any]) -> dict[str, Any]:
    """Add the default of a key; it is unknown where what it follows from is unknown."""
    return entry | {key: known(default)} if entry.get(key) is None else entry


def _interval(steps: int) -> int:
    """Return the smallest divisor of steps that gives at most 10 validations."""
    return steps // max(n for n in range(1, MOST_VALIDATIONS + 1) if steps % n == 0)


def _metric(study: dict[str, Any]) -> str:
    """Return the first metric that the objective of the first experiment measures.

    One that the objectives of all experiments measure comes first.
    """
    used = [entry["objective"]["name"] for entry in study["experiments"].values()]
    measured = [signatures.constant(name, "METRICS", ()) for name in used]
    common = [metric for metric in measured[0] if all(metric in each for each in measured)]
    return [*common, *measured[0], UNKNOWN][0]


def _merge(base: Any, changes: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(changes, dict)):
        return changes
    merged = {key: _merge(base[key], changes[key]) for key in base if key in changes}
    return {**base, **{k: v for k, v in changes.items() if k not in base}, **merged}


def _typed(changes: Any) -> Any:
    """Return what `--config` gives as text as it would be read from the file."""
    if isinstance(changes, dict):
        return {key: _typed(value) for key, value in changes.items()}
    if isinstance(changes, list):
        return [_typed(value) for value in changes]
    is_json = changes is None or isinstance(changes, bool | int | float)
    return changes if is_json else yaml_source.value(str(changes))


def _message(path: Path, source: Source, changes: dict[str, Any], problems: list) -> str:
    """Return the problems as text, a line each, in the order of the file."""
    located = [(_line(source, place), place, what) for place, what in problems]
    lines = []
    for line, place, what in sorted(located, key=lambda each: each[0]):
        where = f"{path}, line {line}" if line else str(path)
        where = "--config" if _contains(changes, place) else where
        lines.append(": ".join([where, *([".".join(map(str, place))] if place else []), what]))
    count = "" if len(lines) == 1 else f" ({len(lines)} problems)"
    return f"The study cannot run{count}:\n" + "\n".join(f"  {line}" for line in lines)


def _line(source: Source, place: Place) -> int:
    """Return the line of a place or of what contains it, counted from 1; 0 for the whole study."""
    parts = (place[:end] for end in range(len(place), 0, -1))
    return next((source.lines[part] for part in parts if part in source.lines), 0)


def _contains(changes: Any, place: Place) -> bool:
    """Return whether a value comes from `--config`."""
    for key in place:
        if not isinstance(changes, dict):
            return True
        if key not in changes:
            return False
        changes = changes[key]
    return bool(place)
