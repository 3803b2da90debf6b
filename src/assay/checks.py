"""What makes a study impossible to run, each in words that say what would be right."""

import difflib
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from typing import Any

import jsonschema
import yaml

from assay import devices, identity, plan, plugins, signatures

SCHEMA = identity.SOURCE.parent / "workflow" / "schemas" / "study.schema.yaml"
STAGES = ("prepare", "pretrain", "finetune", "evaluate", "report")
RESERVED = {*STAGES, "all", "none", "current"}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
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
    "boolean": "true or false",
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
LIMITS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
}
Problems = Iterator[tuple[tuple, str]]


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
    elif error.validator in LIMITS:
        limit = f"{LIMITS[error.validator]} {rule}"
        yield place, f"{_shown(value)} is out of range: it must be {limit}"
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
    if study["compile"] == "reduce-overhead" and devices.resolve(study["device"]) == "cpu":
        yield ("compile",), "reduce-overhead needs a GPU: write none or default"
    if study["compile"] != "none" and study["devices"] > 1:
        yield ("compile",), f"{study['compile']} works on one device: write none, or devices: 1"
    execution = study.get("execution", {})
    if execution.get("timing") == "exclusive" and execution.get("jobs_per_gpu", 1) > 1:
        yield ("execution", "jobs_per_gpu"), "timing: exclusive gives each job its GPU: write 1"
    compiler = os.environ.get("CXX", "g++")
    if study["compile"] != "none" and not shutil.which(compiler):
        yield (
            ("compile",),
            f"{study['compile']} needs the C++ compiler {compiler}, which is not here",
        )
    facts = signatures.facts(study["prepare"]["dataset"]["name"])
    for name, entry in study["pretrain"].items():
        yield from _steps(("pretrain", name), entry, facts["examples"]["train"], study["devices"])
    used = plan.complete(study)
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
            yield from _steps(place, entry, examples, study["devices"])


def _steps(place: tuple, entry: dict[str, Any], examples: int, devices: int) -> Problems:
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
    if entry["batch_size"] % devices:
        near = max(devices, entry["batch_size"] // devices * devices)
        what = f"{entry['batch_size']} cannot be shared evenly by {devices} devices"
        yield (*place, "batch_size"), f"{what}: write {near}"
    elif entry["batch_size"] // devices < fewest:
        what = f"{entry['batch_size']} is too small for {entry['objective']['name']}"
        what += f" on {devices} devices" if devices > 1 else ""
        yield (*place, "batch_size"), f"{what}: write at least {fewest * devices}"
    if entry["batch_size"] > examples:
        what = f"{entry['batch_size']} is more than the {examples} training examples: write at most"
        yield (*place, "batch_size"), f"{what} {examples}"


def _report(study: dict[str, Any]) -> Problems:
    for name, entry in plan.complete(study).items():
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


ALL = (_keys, _schema, _names, _plugins, _training, _report)
