"""What makes a study impossible to run, each in words that say what would be right."""

import importlib.util
import math
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import yaml

from assay import plugins
from assay.runs import identity, input_files
from assay.study import cross_checks, plan, signatures
from assay.study.messages import WORDS, Problems, nearest, remedy, shown, unsafe

SCHEMA = identity.SOURCE.parent / "workflow" / "schemas" / "study.schema.yaml"
STAGES = ("prepare", "pretrain", "finetune", "evaluate", "report")
RESERVED = {*STAGES, "all", "none", "current", plan.DEFAULT}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
TYPES = {
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "list[int]": lambda value: isinstance(value, list) and all(map(TYPES["int"], value)),
    "list[float]": lambda value: isinstance(value, list) and all(map(TYPES["float"], value)),
    "list[str]": lambda value: isinstance(value, list) and all(map(TYPES["str"], value)),
    "dict[str, Any]": lambda value: isinstance(value, dict),
    "Path": lambda value: isinstance(value, str),
}
OPERATORS = {
    ">": lambda value, limit: value > limit,
    ">=": lambda value, limit: value >= limit,
    "<": lambda value, limit: value < limit,
    "<=": lambda value, limit: value <= limit,
}
LIMITS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
}


# Each check yields (place, what is wrong and what would be right), and may rely on those before.


def _keys(study: dict[str, Any], place: tuple = ()) -> Problems:
    for key, value in study.items():
        if not isinstance(key, str):
            yield (*place, key), f"the key {key!r} is not text: put it in quotes"
        elif isinstance(value, dict):
            yield from _keys(value, (*place, key))


def _schema(study: dict[str, Any]) -> Problems:
    yield from _finite(study)
    validator = jsonschema.Draft202012Validator(
        yaml.load(SCHEMA.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    )
    for error in sorted(validator.iter_errors(study), key=lambda error: list(map(str, error.path))):
        yield from _explain(error)


def _finite(value: Any, place: tuple = ()) -> Problems:
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, item in items:
        yield from _finite(item, (*place, key))
    if isinstance(value, float) and not math.isfinite(value):
        yield place, f"{value} is not a finite number: give a number"


def _explain(error: jsonschema.ValidationError) -> Problems:
    """A schema's error in the words of somebody who writes a study."""
    place, value, rule = tuple(error.path), error.instance, error.validator_value
    known = list(error.schema.get("properties", ()))
    if isinstance(value, float) and not math.isfinite(value):
        return
    if error.validator == "additionalProperties":
        for key in sorted(set(value) - set(known)):
            yield (*place, key), f"there is no such key here{nearest(key, known)}"
    elif error.validator == "required":
        for key in sorted(set(rule) - set(value)):
            if f"'{key}' is a required" in error.message:
                yield place, f"the key {key} is missing: add it (config.yaml shows one)"
    elif error.validator == "type":
        yield place, f"{shown(value)} is not {WORDS[rule]}{remedy(value, rule)}"
    elif error.validator in ("enum", "const"):
        options = rule if error.validator == "enum" else [rule, "a whole number"]
        options = list(map(str, options))
        hint = nearest(str(value), options, list_all=False)
        yield place, f"{shown(value)} is not one of {', '.join(options)}{hint}"
    elif error.validator in LIMITS:
        limit = f"{LIMITS[error.validator]} {rule}"
        yield place, f"{shown(value)} is out of range: it must be {limit}"
    elif error.validator == "pattern":
        yield place, unsafe(value)
    elif error.validator in ("minItems", "minProperties", "minLength"):
        yield place, "is empty: give at least one"
    elif error.validator == "uniqueItems":
        yield place, f"{shown(value)} holds an entry twice: delete one"
    else:
        yield place, f"{shown(value)}: {error.message}"


def _names(study: dict[str, Any]) -> Problems:
    sections = {(key,): study[key] for key in ("pretrain", "experiments")}
    sections["prepare", "additional"] = study["prepare"].get("additional", {})
    for section, named in sections.items():
        seen: dict[str, str] = {}
        for name in named:
            if not NAME.fullmatch(name) or name.endswith("."):
                yield (*section, name), unsafe(name)
            elif name.lower() in RESERVED:
                yield (*section, name), f"{name!r} means something else here: choose another name"
            elif name.lower() in seen:
                other = seen[name.lower()]
                yield (
                    (*section, name),
                    f"differs from {other} in upper and lower case alone, which some file systems "
                    "take for the same: choose another name",
                )
            seen[name.lower()] = name
    if not NAME.fullmatch(study["study"]) or study["study"].endswith("."):
        yield ("study",), unsafe(study["study"])
    elif study["study"].lower() in RESERVED:
        yield ("study",), f"{study['study']!r} means something else here: choose another name"


def _plugins(study: dict[str, Any]) -> Problems:
    for kind, place, settings in chosen(study):
        name = settings["name"]
        if problem := _unknown(kind, name):
            yield (*place, "name"), problem
            continue
        if plugins.is_own(kind, name) and not identity.file(plugins.split(name)[0]):
            continue  # another library's, which says itself what it takes
        try:
            takes = signatures.parameters(kind, name)
            if kind == "dataset":
                signatures.info(name)
            if kind == "model" and (problem := _network(name)):
                yield (*place, "name"), problem
                continue
        except signatures.PluginError as error:
            yield (*place, "name"), str(error)
            continue
        open_ended = signatures.is_open(kind, name)
        yield from _arguments(f"{kind} {name}", place, settings, takes, open_ended)
        handed_on = {k: v for k, v in signatures.paths(kind, settings).items() if k not in takes}
        for key, value in handed_on.items():
            yield from _argument((*place, *key.split(".")), value, signatures.FILES)


def _unknown(kind: str, name: str) -> str | None:
    """Why there is no such plug-in; None where there is."""
    available = plugins.names(kind)
    first, target = plugins.split(name)
    if not target:
        if name in available:
            return None
        return f"there is no {kind} {name!r} in src/assay/{plugins.KINDS[kind]}/" + nearest(
            name, available
        )
    if not plugins.CODE.fullmatch(name) and plugins.is_own(kind, name):
        return f"{name!r} is no package.module:name"
    if kind != "model":
        return f"{kind} {name!r}: one of your own is a file in src/assay/{plugins.KINDS[kind]}/"
    if plugins.is_own(kind, name) and not identity.file(first) and not _is_installed(first):
        return f"there is no module {first}: put its file below src/"
    return None


def _network(model: str) -> str | None:
    """Why a model's name does not say which of a library's networks it is; None where it does."""
    first, target = plugins.split(model)
    if plugins.is_own("model", model) or bool(target) == signatures.is_library(first):
        return None
    if target:
        return f"{first} is one network: write {first}"
    return f"{first} is a library of networks: write {first}: and the name of one"


def _is_installed(module: str) -> bool:
    """Whether a module is an installed library's, whose code changes with its version alone."""
    try:
        found = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        return False
    return bool(found and found.origin and "site-packages" in found.origin)


def _arguments(
    what: str,
    place: tuple,
    settings: dict[str, Any],
    takes: dict[str, signatures.Parameter],
    open_ended: bool,
) -> Problems:
    given = {key: value for key, value in settings.items() if key != "name"}
    for key in () if open_ended else given.keys() - takes.keys():
        hint = nearest(key, takes) or "; it takes none"
        yield (*place, key), f"{what} takes no such setting{hint}"
    for key, parameter in takes.items():
        if key in given:
            yield from _argument((*place, key), given[key], parameter)
        elif parameter.required:
            needed = WORDS.get(parameter.type, parameter.type)
            if parameter.choices:
                needed = f"one of {', '.join(map(str, parameter.choices))}"
            yield place, f"the key {key} is missing: {what} needs it ({needed})"


def chosen(study: dict[str, Any]) -> Iterator[tuple[str, tuple, dict[str, Any]]]:
    """The plug-ins that a study names: kind, place, and settings with the `name`."""
    for name, entry in plan.data(study).items():
        place = plan.place(name)
        yield "dataset", (*place, "dataset"), entry["dataset"]
        if "tokenizer" in entry and not plan.tokenizer_source(entry):
            yield "tokenizer", (*place, "tokenizer"), entry["tokenizer"]
    yield "model", ("model",), study["model"]
    yield "objective", ("finetune", "objective"), study["finetune"]["objective"]
    for section in ("pretrain", "experiments"):
        for name, entry in study[section].items():
            for kind in ("model", "objective"):
                if kind in entry:
                    yield kind, (section, name, kind), entry[kind]


def _argument(place: tuple, value: Any, parameter: signatures.Parameter) -> Problems:
    if value is None and parameter.nullable:
        return
    if parameter.choices and value not in parameter.choices:
        options = [str(choice) for choice in parameter.choices]
        hint = nearest(str(value), options, list_all=False)
        yield place, f"{shown(value)} is not one of {', '.join(options)}{hint}"
        return
    fits = TYPES.get(parameter.type, lambda value: True)
    if not fits(value):
        words = WORDS.get(parameter.type, parameter.type)
        yield place, f"{shown(value)} is not {words}{remedy(value, parameter.type)}"
        return
    for operator, limit in parameter.bounds:
        if not OPERATORS[operator](value, limit):
            yield place, f"{shown(value)} is out of range: it must be {operator} {limit}"
    if parameter.type == "Path":
        yield from _readable(place, value)


def _readable(place: tuple, value: str) -> Problems:
    try:
        for path in input_files.listed(value):
            with path.open("rb"):
                pass
    except FileNotFoundError:
        what = "there is no such file or folder, or nothing in it that matches"
        yield place, f"{shown(value)}: {what}: paths start where snakemake is typed"
    except OSError as error:
        yield place, f"{error.filename}: cannot be read: {error.strerror}"


ALL = (
    _keys,
    _schema,
    _names,
    _plugins,
    cross_checks.data,
    cross_checks.training,
    cross_checks.report,
)
