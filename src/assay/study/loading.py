"""Reads a study and checks it as a whole, before anything runs."""

import math
import re
from pathlib import Path
from typing import Any

import yaml

from assay.devices import gpus
from assay.runs import input_files
from assay.study import plan, signatures, validation

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times faster
MISREAD = re.compile(r"[-+]?(0[0-9_]+|[0-9_]+(:[0-9.]+)+)")  # octal, and base 60


class StudyError(ValueError):
    """A study that cannot run; the text names the file, each key, its value and the remedy."""


def read(path: Path, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """Read a study from a YAML file.

    Args:
        path: the file.
        changes: values laid over the file's, key by key, as `snakemake --config` gives them.

    Returns:
        The study with each experiment's settings complete, and `cpu` or `gpu` for an `auto` device.

    Raises:
        StudyError: with all that is wrong.
    """
    lines: dict[tuple, int] = {}
    changes = _typed(changes or {})
    study = _merge(_parse(path, lines), changes)
    study = _with_plain_numbers(study)
    for check in validation.ALL:
        problems = list(dict.fromkeys(check(study)))
        if problems:
            raise StudyError(_message(path, lines, changes, problems))
    return {
        **study,
        "experiments": plan.complete(study),
        **_sources(study),
        "device": gpus.resolve(study["device"]),
    }


def _sources(study: dict[str, Any]) -> dict[str, dict[str, str]]:
    """What stands in the user's own files that a study names, as digests."""
    chosen = [(kind, settings) for kind, _, settings in validation.chosen(study)]
    paths = {path for one in chosen for path in signatures.paths(*one).values()}
    return {"sources": {path: input_files.digest(path) for path in sorted(paths)}} if paths else {}


def _parse(path: Path, lines: dict[tuple, int]) -> dict[str, Any]:
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader)
        _index(root, (), lines, path)
        study = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except StudyError:
        raise
    except FileNotFoundError as error:
        raise StudyError(
            f"{path}: there is no such file; name a study with --configfile"
        ) from error
    except OSError as error:
        raise StudyError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise StudyError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    except RecursionError as error:
        raise StudyError(f"{path}: an alias (*name) stands inside its own anchor") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise StudyError(f"{path}{where}: is not valid YAML: {what}") from error
    except ValueError as error:
        raise StudyError(f"{path}: is not valid YAML: {error}") from error
    if not isinstance(study, dict):
        kind = "is empty" if study is None else f"holds {type(study).__name__}, not keys and values"
        raise StudyError(f"{path}: {kind}; config.yaml of the project shows what a study says")
    return study


def _index(node: Any, place: tuple, lines: dict[tuple, int], path: Path) -> None:
    """Note each key's line, and refuse a key that stands twice: YAML would drop the first."""
    if isinstance(node, yaml.ScalarNode) and MISREAD.fullmatch(node.value) and _is_number(node):
        read, line = yaml.load(node.value, Loader), node.start_mark.line + 1
        what = f"YAML reads {node.value} as {read}: write what you mean, or put it in quotes"
        raise StudyError(f"{path}, line {line}: {'.'.join(map(str, place))}: {what}")
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            lines[(*place, number)] = item.start_mark.line + 1
            _index(item, (*place, number), lines, path)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        name, line = key.value, key.start_mark.line + 1
        if not isinstance(name, str):
            raise StudyError(f"{path}, line {line}: a key must be text")
        if name in seen and name != "<<":
            where = ".".join(map(str, (*place, name)))
            raise StudyError(
                f"{path}, line {line}: {where} stands twice, first in line {seen[name]}; YAML "
                "would keep only the last: delete one"
            )
        seen[name] = lines[(*place, name)] = line
        _index(value, (*place, name), lines, path)


def _is_number(node: yaml.ScalarNode) -> bool:
    return node.tag.endswith((":int", ":float"))


def _merge(base: Any, changes: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(changes, dict)):
        return changes
    merged = {key: _merge(base[key], changes[key]) for key in base if key in changes}
    return {**base, **{k: v for k, v in changes.items() if k not in base}, **merged}


def _typed(changes: Any) -> Any:
    """What `--config` gives as text, as it would be read from the file."""
    if isinstance(changes, dict):
        return {key: _typed(value) for key, value in changes.items()}
    if isinstance(changes, list):
        return [_typed(value) for value in changes]
    if not isinstance(changes, str):
        return changes
    try:
        return yaml.load(changes, Loader)
    except (yaml.YAMLError, ValueError):
        return changes


def _with_plain_numbers(value: Any) -> Any:
    """Whole numbers as int, so that 1 and 1.0 are the same setting."""
    if isinstance(value, dict):
        return {key: _with_plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_plain_numbers(item) for item in value]
    whole = isinstance(value, float) and math.isfinite(value) and value.is_integer()
    return int(value) if whole else value


def _message(path: Path, lines: dict, changes: dict[str, Any], problems: list) -> str:
    text = []
    for place, what in problems:
        known = (place[:end] for end in range(len(place), 0, -1) if place[:end] in lines)
        line = next((lines[part] for part in known), None)
        where = f"{path}, line {line}" if line else str(path)
        where = "--config" if place and place[0] in changes else where
        text.append(": ".join([where, *([".".join(map(str, place))] if place else []), what]))
    count = "" if len(text) == 1 else f" ({len(text)} problems)"
    return f"The study cannot run{count}:\n" + "\n".join(f"  {line}" for line in text)
