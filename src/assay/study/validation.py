"""Checks the parts of a study: format, names and plug-ins. No plug-in is imported."""

import importlib.util
import math
import re
from typing import Any

from assay import plugins
from assay.runs import identity, input_files
from assay.study import plugin_settings, schema, signatures, structure
from assay.study.messages import mismatches, nearest, shown, unsafe
from assay.study.structure import UNKNOWN, Place, Problems

STAGES = ("prepare", "pretrain", "finetune", "evaluate", "report")
RESERVED = {*STAGES, "all", "current", schema.NO_PRETRAINING}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
CONVERT = "run `assay convert FILE` to upgrade a study of an older version"


def version(study: dict[str, Any]) -> str | None:
    """Return why this version of Assay cannot read a study's format; None where it can."""
    found = study.get("schema")
    if found == schema.VERSION and not isinstance(found, bool):
        return None
    if "schema" not in study:
        return f"is missing: start the file with `schema: {schema.VERSION}`, or {CONVERT}"
    if isinstance(found, int) and not isinstance(found, bool) and found < schema.VERSION:
        return f"{found} is an older format: {CONVERT}"
    what = f"{shown(found)} is not a format that this version of Assay knows"
    return f"{what}: write {schema.VERSION}, or use the version of Assay that the study is for"


def values(study: Any, place: Place = ()) -> Problems:
    """Yield keys that are not text, and numbers that are not finite."""
    if isinstance(study, dict):
        for key, value in study.items():
            if not isinstance(key, str):
                yield (*place, str(key)), f"the key {shown(key)} is not text: put it in quotes"
            yield from values(value, (*place, str(key)))
    elif isinstance(study, list):
        for index, value in enumerate(study):
            yield from values(value, (*place, index))
    elif isinstance(study, float) and not math.isfinite(study):
        yield place, f"{study} is not a finite number: write one"


def names(study: dict[str, Any]) -> Problems:
    """Yield names that cannot be those of folders, or mean something else."""
    sections = {
        ("pretrain",): study.get("pretrain"),
        ("experiments",): study.get("experiments"),
        ("prepare", "additional"): _mapping(study.get("prepare")).get("additional"),
    }
    for section, named in sections.items():
        seen: dict[str, str] = {}
        for name in filter(lambda key: isinstance(key, str), _mapping(named)):
            reserved = RESERVED | ({schema.DEFAULT_DATA} if section[0] == "prepare" else set())
            if what := _name(name, reserved, seen.get(name.lower())):
                yield (*section, name), what
            seen[name.lower()] = name
    if isinstance(study.get("study"), str) and (what := _name(study["study"], RESERVED)):
        yield ("study",), what


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _name(name: str, reserved: set[str], other: str | None = None) -> str | None:
    if not NAME.fullmatch(name) or name.endswith("."):
        return unsafe(name)
    if name.lower() in reserved:
        return f"{name!r} has another meaning here: choose another name"
    if other:
        return (
            f"differs from {other} only in upper and lower case, which some file systems do not "
            "distinguish: choose another name"
        )
    return None


def keys(study: dict[str, Any]) -> Problems:
    """Yield what does not fit the format: unknown and missing keys, wrong types, wrong values."""
    for place, what in mismatches(schema.Study, study, "there is no such key here"):
        inherited = len(place) == 3 and place[0] == "experiments"
        if not (inherited and what.startswith("is missing")):
            yield place, what


def chosen_plugins(study: dict[str, Any]) -> Problems:
    """Yield what is wrong with the plug-ins of an expanded study."""
    for kind, place in structure.chosen(study, schema.Study):
        settings = structure.value_at(study, place)
        if settings is UNKNOWN or (settings is None and kind in ("tokenizer", "model")):
            continue
        if kind == "tokenizer" and "from" in settings:
            problems = _source(settings)
        else:
            problems = _plugin(kind, settings)
        for within, what in problems:
            yield (*place, *within), what


def _source(settings: dict[str, Any]) -> Problems:
    """Check a tokenizer that other data of the study has."""
    if not isinstance(settings["from"], str):
        yield ("from",), f"{shown(settings['from'])} is not the name of data"
    for key in settings.keys() - {"from"}:
        yield (key,), "has no meaning beside `from`: delete it"


def _plugin(kind: str, settings: dict[str, Any]) -> Problems:
    name = settings.get("name")
    if "name" not in settings:
        yield ("name",), f"is missing: add the name of a {kind}"
    elif not isinstance(name, str):
        yield ("name",), f"{shown(name)} is not the name of a {kind}: put it in quotes"
    elif problem := _unknown(kind, name):
        yield ("name",), problem
    elif not plugins.is_own(kind, name) or identity.module_file(plugins.split(name)[0]):
        try:
            yield from _settings(kind, settings)
        except signatures.PluginError as error:
            yield ("name",), str(error)


def _settings(kind: str, settings: dict[str, Any]) -> Problems:
    """Check the settings of a plug-in that this project contains."""
    name = settings["name"]
    section = plugin_settings.section(kind, name)
    if kind == "dataset":
        signatures.info(name)
    if kind == "model" and (problem := _network(name)):
        yield ("name",), problem
        return
    problems = dict(mismatches(section, settings, f"{kind} {name} has no such setting"))
    yield from problems.items()
    for key, path in plugin_settings.paths(kind, settings).items():
        place = tuple(key.split("."))
        if place not in problems:
            yield from _readable(place, path)


def _unknown(kind: str, name: str) -> str | None:
    """Return why there is no such plug-in; None where there is."""
    available = plugins.names(kind)
    first, target = plugins.split(name)
    folder = f"src/assay/{plugins.KINDS[kind]}/"
    if not target:
        missing = f"there is no {kind} {name!r} in {folder}" + nearest(name, available)
        return None if name in available else missing
    if not plugins.CODE.fullmatch(name) and plugins.is_own(kind, name):
        return f"{name!r} is not of the form package.module:name"
    if kind != "model":
        return f"{name!r}: your own {kind} is a file in {folder}: write its name alone"
    if plugins.is_own(kind, name) and not identity.module_file(first) and not _is_installed(first):
        return f"there is no module {first}: put its file below src/"
    return None


def _network(model: str) -> str | None:
    """Return why a model's name does not say which network of a library it is; None if it does."""
    first, target = plugins.split(model)
    if plugins.is_own("model", model) or bool(target) == signatures.is_library(first):
        return None
    if target:
        return f"{first} is a single network: write {first}"
    return f"{first} is a library of networks: write {first}: and the name of one"


def _is_installed(module: str) -> bool:
    """Return whether a module is of an installed library, whose code changes with its version."""
    try:
        found = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        return False
    return bool(found and found.origin and "site-packages" in found.origin)


def _readable(place: Place, value: Any) -> Problems:
    """Check that the user's own files are there."""
    if not isinstance(value, str):
        yield place, f"{shown(value)} is not the path of a file or folder"
        return
    try:
        for path in input_files.expand(value):
            with path.open("rb"):
                pass
    except FileNotFoundError:
        what = "there is no such file or folder, or nothing in it that matches"
        yield place, f"{shown(value)}: {what}: paths start where snakemake is run"
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        yield place, f"{getattr(error, 'filename', None) or value}: cannot be read: {reason}"
