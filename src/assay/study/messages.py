"""Says in words where a value is not what its type demands, and how to fix it."""

import difflib
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable
from functools import cache
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from assay.study import structure
from assay.study.structure import UNKNOWN, Place, Problems

TYPES = {
    "int_type": "an integer",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping (key: value)",
    "dataclass_type": "a mapping (key: value)",
}
LIMITS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
KEYS = ("missing", "unexpected_keyword_argument")
PLURALS = {int: "integers", float: "numbers", str: "texts"}
WORDS = {
    int: "an integer",
    float: "a number",
    str: "text",
    bool: "true or false",
    Any: "any value",
}


def unsafe(name: Any) -> str:
    """Say why a name cannot be that of a folder."""
    return (
        f"{shown(name)} is not a safe name for a folder: use letters, digits, '_', '-' and '.', "
        "starting with a letter or digit, at most 63 characters"
    )


def shown(value: Any) -> str:
    """Return a value as a message shows it: as in YAML, and shortened."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    try:
        text = repr(value)
    except ValueError:  # Python refuses to print integers of thousands of digits
        return "this number"
    return text if len(text) < 80 else text[:77] + "..."


def words(kind: Any) -> str:
    """Return what a type is called in messages, such as `an integer`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind in WORDS:
        return WORDS[kind]
    if origin is Annotated:
        return next((each for each in arguments if isinstance(each, str)), words(arguments[0]))
    if origin is Literal:
        return "one of " * (len(arguments) > 1) + ", ".join(map(str, arguments))
    if origin is list:
        return f"a list of {PLURALS[arguments[0]]}" if arguments[0] in PLURALS else "a list"
    if origin is dict or not arguments:
        return "a mapping (key: value)"
    return " or ".join(words(each) for each in arguments if each is not NoneType)


def remedy(value: Any, expected: Iterable[str]) -> str:
    """Return what to write instead of a value of the wrong type; empty where that is unclear."""
    expected = list(expected)
    if value is None and "a mapping (key: value)" in expected:
        return ": write {} for one without keys"
    if value is None:
        return ": add a value, or delete the key"
    if "text" in expected and isinstance(value, bool | int | float):
        return ": put it in quotes"
    if isinstance(value, str) and {"a number", "an integer"} & set(expected):
        return _without_quotes(value)
    if expected == ["a list"] and isinstance(value, str | int | float):
        return f": write [{value}]"
    return ""


def _without_quotes(text: str) -> str:
    try:
        number = float(text)
    except ValueError:
        return ""
    return f": write {text.strip()} without quotes" if math.isfinite(number) else ""


def nearest(name: str, options: Iterable[str], list_all: bool = True) -> str:
    """Return a suggestion of the option most like a name, or else a list of all options."""
    options = list(options)
    lowered = {option.lower(): option for option in options}
    near = difflib.get_close_matches(str(name).lower(), lowered, n=1, cutoff=0.5)
    near = near or [option for option in lowered if name and option.startswith(str(name).lower())]
    if near:
        return f"; did you mean {lowered[near[0]]}?"
    return f"; available: {', '.join(sorted(options))}" if options and list_all else ""


@cache
def adapter(kind: Any) -> TypeAdapter:
    """Return pydantic's validator of a type."""
    return TypeAdapter(kind)


def mismatches(kind: Any, value: Any, unknown: str) -> Problems:
    """Yield where a value is not of a type.

    Args:
        kind: the type, a dataclass.
        value: made of the types of JSON.
        unknown: the message about a key that the type does not have.
    """
    try:  # in JSON, since a strict validator makes no dataclass of Python's dict
        text = json.dumps(value, default=lambda unknown: None)
        adapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        found: dict[Place, list[Any]] = defaultdict(list)
        for each in error.errors(include_url=False, include_input=False):
            found[_place(value, each)].append(each)
        for place, errors in found.items():
            kind_of_error = errors[0]["type"]
            if kind_of_error == "unexpected_keyword_argument":
                yield place, unknown + nearest(place[-1], _fields(kind, place[:-1]))
            elif kind_of_error == "missing":
                yield place, f"is missing: add it, {words(_fields(kind, place[:-1])[place[-1]])}"
            elif _at(value, place) is not UNKNOWN and not _is_of_other_member(place, errors, found):
                yield place, _explain(_at(value, place), errors)


def _place(value: Any, error: Any) -> Place:
    """Return the keys that lead to an error, without pydantic's names of the members of unions."""
    location, keys = error["loc"], []
    last = location[-1:] if error["type"] in KEYS else ()
    for part in location[: len(location) - len(last)]:
        is_key = isinstance(value, dict) and part in value
        if is_key or (isinstance(value, list) and isinstance(part, int) and part < len(value)):
            keys.append(part)
            value = value[part]
    return (*keys, *last)


def _at(value: Any, place: Place) -> Any:
    for key in place:
        value = value[key]
    return value


def _fields(kind: Any, place: Place) -> dict[str, Any]:
    """Return the fields of the dataclass to which keys lead from another one."""
    for key in place:
        kind = structure.keys(kind, {key: None})[key]
    return structure.keys(kind, {})


def _is_of_other_member(place: Place, errors: list[Any], found: dict[Place, list[Any]]) -> bool:
    """Return whether errors say only that a mapping or list is not another member of a union."""
    below = any(len(other) > len(place) and other[: len(place)] == place for other in found)
    return below and all(each["type"] in {*TYPES, "literal_error"} for each in errors)


def _explain(value: Any, errors: list[Any]) -> str:
    """Return what is wrong with a value in the words of somebody who writes a study."""
    for error in errors:
        if error["type"] not in {*TYPES, "literal_error"}:
            return _limit(value, error["type"], error.get("ctx", {}), error["msg"])
    expected = list(dict.fromkeys(TYPES[e["type"]] for e in errors if e["type"] in TYPES))
    options = [
        option.strip("'")
        for error in errors
        if error["type"] == "literal_error"
        for option in re.split(r", | or ", error["ctx"]["expected"])
    ]
    hint = nearest(str(value), options, list_all=False) or remedy(value, expected)
    one_of = [f"one of {', '.join(options)}"] if len(options) > 1 else options
    return f"{shown(value)} is not {' or '.join([*expected, *one_of])}{hint}"


def _limit(value: Any, error: str, context: dict[str, Any], otherwise: str) -> str:
    if error in LIMITS:
        key, relation = LIMITS[error]
        limit = structure.plain(context[key])
        return f"{shown(value)} is out of range: it must be {relation} {limit}"
    if error in ("too_short", "string_too_short"):
        return "is empty: give at least one" if isinstance(value, list | dict) else "is empty"
    if error in ("too_long", "string_too_long"):
        return f"is too long: at most {context['max_length']} are allowed"
    if error == "predicate_failed":
        return f"{shown(value)} contains an entry twice: delete one"
    return f"{shown(value)}: {otherwise}"
