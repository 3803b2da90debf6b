"""Reads a study and checks it as a whole, before anything runs."""

import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from assay import devices, identity, plugins, signatures

SCHEMA = identity.SOURCE.parent / "workflow" / "schemas" / "study.schema.yaml"
STAGES = ("prepare", "pretrain", "finetune", "evaluate", "report")
RESERVED = {*STAGES, "all", "none", "current"}
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times faster
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
MISREAD = re.compile(r"[-+]?(0[0-9_]+|[0-9_]+(:[0-9.]+)+)")  # octal, and base 60
TYPES = {
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "float": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "list[int]": lambda value: isinstance(value, list) and all(map(TYPES["int"], value)),
    "list[float]": lambda value: isinstance(value, list) and all(map(TYPES["float"], value)),
    "list[str]": lambda value: isinstance(value, list) and all(map(TYPES["str"], value)),
}
WORDS = {
    "int": "a whole number",
    "integer": "a whole number",
    "float": "a number",
    "number": "a number",
    "str": "text",
    "string": "text",
    "bool": "true or false",
    "object": "a mapping (key: value)",
    "array": "a list",
    "list[int]": "a list of whole numbers",
    "list[float]": "a list of numbers",
    "list[str]": "a list of texts",
}
OPERATORS = {
    ">": lambda value, limit: value > limit,
    ">=": lambda value, limit: value >= limit,
    "<": lambda value, limit: value < limit,
    "<=": lambda value, limit: value <= limit,
}
Problems = Iterator[tuple[tuple, str]]


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
    for check in (_keys, _schema, _names, _plugins, _training, _report):
        problems = list(check(study))
        if problems:
            raise StudyError(_message(path, lines, changes, problems))
    return {**study, "experiments": _complete(study), "device": devices.resolve(study["device"])}


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


# Each check yields (place, what is wrong and what would be right), and may rely on those before.


def _keys(study: dict[str, Any], place: tuple = ()) -> Problems:
    for key, value in study.items():
        if not isinstance(key, str):
            yield (*place, key), f"the key {key!r} is not text: put it in quotes"
        elif isinstance(value, dict):
            yield from _keys(value, (*place, key))


def _schema(study: dict[str, Any]) -> Problems:
    yield from _finite(study)
    validator = jsonschema.Draft202012Validator(yaml.load(SCHEMA.read_text(), Loader))
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
            yield (*place, key), f"there is no such key here{_nearest(key, known)}"
    elif error.validator == "required":
        for key in sorted(set(rule) - set(value)):
            if f"'{key}' is a required" in error.message:
                yield place, f"the key {key} is missing: add it (config.yaml shows one)"
    elif error.validator == "type":
        yield place, f"{_shown(value)} is not {WORDS[rule]}{_remedy(value, rule)}"
    elif error.validator in ("enum", "const"):
        options = rule if error.validator == "enum" else [rule, "a whole number"]
        options = list(map(str, options))
        hint = _nearest(str(value), options, list_all=False)
        yield place, f"{_shown(value)} is not one of {', '.join(options)}{hint}"
    elif error.validator in ("minimum", "exclusiveMinimum", "maximum"):
        words = {"minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most"}
        yield place, f"{_shown(value)} is out of range: it must be {words[error.validator]} {rule}"
    elif error.validator == "pattern":
        yield place, _unsafe(value)
    elif error.validator in ("minItems", "minProperties", "minLength"):
        yield place, "is empty: give at least one"
    elif error.validator == "uniqueItems":
        yield place, f"{_shown(value)} holds an entry twice: delete one"
    else:
        yield place, f"{_shown(value)}: {error.message}"


def _unsafe(name: Any) -> str:
    return (
        f"{_shown(name)} is no safe name for a folder: use letters, digits, '_', '-' and '.', "
        "beginning with a letter or digit, at most 63 characters"
    )


def _shown(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) < 80 else text[:77] + "..."


def _remedy(value: Any, wanted: str) -> str:
    """What to write instead of text where something else is wanted."""
    if wanted in ("array", "object") and isinstance(value, str):
        return f": write [{value}]" if wanted == "array" else f": write {{ name: {value} }}"
    if wanted in ("number", "integer", "int", "float") and isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return ""
        if math.isfinite(number):
            plain = str(int(number)) if number.is_integer() else f"{number!r}"
            return f": YAML takes it for text; write {_as_yaml(plain)}"
    return ""


def _as_yaml(number: str) -> str:
    mantissa, _, exponent = number.partition("e")
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{exponent}" if exponent else number


def _nearest(name: str, options: Iterable[str], list_all: bool = True) -> str:
    options = list(options)
    lowered = {option.lower(): option for option in options}
    near = difflib.get_close_matches(str(name).lower(), lowered, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {lowered[near[0]]}?"
    return f"; there is {', '.join(sorted(options))}" if options and list_all else ""


def _names(study: dict[str, Any]) -> Problems:
    for section in ("pretrain", "experiments"):
        seen: dict[str, str] = {}
        for name in study[section]:
            if not NAME.fullmatch(name) or name.endswith("."):
                yield (section, name), _unsafe(name)
            elif name.lower() in RESERVED:
                yield (section, name), f"{name!r} means something else here: choose another name"
            elif name.lower() in seen:
                other = seen[name.lower()]
                yield (
                    (section, name),
                    f"differs from {other} in upper and lower case alone, which some file systems "
                    "take for the same: choose another name",
                )
            seen[name.lower()] = name
    if not NAME.fullmatch(study["study"]) or study["study"].endswith("."):
        yield ("study",), _unsafe(study["study"])
    elif study["study"].lower() in RESERVED:
        yield ("study",), f"{study['study']!r} means something else here: choose another name"


def _plugins(study: dict[str, Any]) -> Problems:
    for kind, place, chosen in _chosen(study):
        available = plugins.names(kind)
        if chosen["name"] not in available:
            what = f"there is no {kind} {chosen['name']!r} in src/assay/{plugins.KINDS[kind]}/"
            yield (*place, "name"), what + _nearest(chosen["name"], available)
            continue
        try:
            takes = signatures.parameters(kind, chosen["name"])
            if kind == "dataset":
                signatures.facts(chosen["name"])
        except signatures.PluginError as error:
            yield (*place, "name"), str(error)
            continue
        given = {key: value for key, value in chosen.items() if key != "name"}
        for key in given.keys() - takes.keys():
            hint = _nearest(key, takes) or "; it takes none"
            yield (*place, key), f"{kind} {chosen['name']} takes no such setting{hint}"
        for key, parameter in takes.items():
            if key in given:
                yield from _argument((*place, key), given[key], parameter)
            elif parameter.required:
                needed = WORDS.get(parameter.type, parameter.type)
                yield (
                    place,
                    f"the key {key} is missing: {kind} {chosen['name']} needs it ({needed})",
                )


def _chosen(study: dict[str, Any]) -> Iterator[tuple[str, tuple, dict[str, Any]]]:
    yield "dataset", ("prepare", "dataset"), study["prepare"]["dataset"]
    yield "model", ("model",), study["model"]
    yield "objective", ("finetune", "objective"), study["finetune"]["objective"]
    for section in ("pretrain", "experiments"):
        for name, entry in study[section].items():
            for kind in ("model", "objective"):
                if kind in entry:
                    yield kind, (section, name, kind), entry[kind]


def _argument(place: tuple, value: Any, parameter: signatures.Parameter) -> Problems:
    fits = TYPES.get(parameter.type, lambda value: True)
    if not fits(value):
        words = WORDS.get(parameter.type, parameter.type)
        yield place, f"{_shown(value)} is not {words}{_remedy(value, parameter.type)}"
        return
    for operator, limit in parameter.bounds:
        if not OPERATORS[operator](value, limit):
            yield place, f"{_shown(value)} is out of range: it must be {operator} {limit}"


def _training(study: dict[str, Any]) -> Problems:
    if study["precision"] == "16-mixed" and devices.resolve(study["device"]) == "cpu":
        yield ("precision",), "16-mixed needs a GPU: write 32-true or bf16-mixed"
    facts = signatures.facts(study["prepare"]["dataset"]["name"])
    for name, entry in study["pretrain"].items():
        yield from _steps(("pretrain", name), entry, facts["examples"]["train"])
    used = _complete(study)
    for name, entry in used.items():
        place = ("experiments", name)
        if entry["pretraining"] not in ("none", *study["pretrain"]):
            options = ["none", *study["pretrain"]]
            what = f"there is no pretraining {entry['pretraining']!r}"
            yield (*place, "pretraining"), what + _nearest(entry["pretraining"], options)
        elif entry["pretraining"] != "none":
            start = study["pretrain"][entry["pretraining"]].get("model", study["model"])
            if study["experiments"][name].get("model", start) != start:
                what = (
                    f"differs from the model of its pretraining {entry['pretraining']}: delete it"
                )
                yield (*place, "model"), what
        labels, available = entry["labels_per_class"], facts.get("labels_per_class")
        at = place if "labels_per_class" in study["experiments"][name] else ("finetune",)
        examples = facts["examples"]["train"]
        if labels != "all" and available is None:
            yield (*at, "labels_per_class"), f"{labels}: this data set has no classes; write all"
        elif labels != "all" and labels > available:
            what = f"{labels} is more than the rarest class has: at most {available}, or all"
            yield (*at, "labels_per_class"), what
        else:
            examples = examples if labels == "all" else labels * facts["classes"]
            yield from _steps(place, entry, examples)


def _steps(place: tuple, entry: dict[str, Any], examples: int) -> Problems:
    steps, every = entry["steps"], entry["validate_every_steps"]
    if steps % every:
        near = max(every, round(steps / every) * every)
        what = f"{steps} is no multiple of validate_every_steps ({every}): write {near}"
        yield (*place, "steps"), what
    if entry["warmup_steps"] >= steps:
        what = (
            f"{entry['warmup_steps']} leaves nothing of the {steps} steps: write a smaller number"
        )
        yield (*place, "warmup_steps"), what
    fewest = signatures.constant(entry["objective"]["name"], "SMALLEST_BATCH", 1)
    if entry["batch_size"] < fewest:
        what = f"{entry['batch_size']} is too small for {entry['objective']['name']}"
        yield (*place, "batch_size"), f"{what}: write at least {fewest}"
    if entry["batch_size"] > examples:
        what = f"{entry['batch_size']} is more than the {examples} training examples: write at most"
        yield (*place, "batch_size"), f"{what} {examples}"


def _report(study: dict[str, Any]) -> Problems:
    for name, entry in _complete(study).items():
        own = "objective" in study["experiments"][name]
        place = ("experiments", name) if own else ("finetune",)
        measured = signatures.constant(entry["objective"]["name"], "METRICS", ())
        if not measured:
            what = f"{entry['objective']['name']} measures nothing: it states no METRICS"
            yield (*place, "objective", "name"), what
        elif study["report"]["metric"] not in measured:
            what = f"{study['report']['metric']!r} is not measured by {entry['objective']['name']}"
            yield ("report", "metric"), what + _nearest(study["report"]["metric"], measured)
            break
    target = study["report"]["target"]
    if study["report"]["metric"] == "accuracy" and not 0 < target <= 1:
        yield ("report", "target"), f"{target} is no accuracy: write a number from 0 to 1"
    experiments = list(study["experiments"])
    for name, baselines in study["report"]["comparisons"].items():
        place = ("report", "comparisons", name)
        for value in (name, *baselines):
            if value not in experiments:
                yield place, f"there is no experiment {value!r}{_nearest(value, experiments)}"
        if name in baselines:
            yield place, f"{name} is compared with itself: name another"
    available = signatures.functions("figures")
    for number, name in enumerate(study["report"]["figures"]):
        if name not in available:
            what = f"there is no figure {name!r}{_nearest(name, available)}"
            yield ("report", "figures", number), what


def _complete(study: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each experiment's settings: `finetune`, what it changes of that, and its model."""
    complete = {}
    for name, entry in study["experiments"].items():
        start = study["pretrain"].get(entry["pretraining"], {})
        model = {"model": start.get("model", study["model"])}
        complete[name] = {**study["finetune"], **model, **entry}
    return complete


def canonical(study: dict[str, Any]) -> str:
    """The study as one line of JSON that does not depend on the order of keys."""
    return json.dumps(study, sort_keys=True, separators=(",", ":"))
