"""Words for what is wrong in a study and what would be right."""

import difflib
import math
from collections.abc import Iterable, Iterator
from typing import Any

Problems = Iterator[tuple[tuple, str]]
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
    "dict[str, Any]": "a mapping (key: value)",
    "Path": "the path of a file or folder",
}


def unsafe(name: Any) -> str:
    return (
        f"{shown(name)} is no safe name for a folder: use letters, digits, '_', '-' and '.', "
        "beginning with a letter or digit, at most 63 characters"
    )


def shown(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) < 80 else text[:77] + "..."


def remedy(value: Any, wanted: str) -> str:
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


def nearest(name: str, options: Iterable[str], list_all: bool = True) -> str:
    options = list(options)
    lowered = {option.lower(): option for option in options}
    near = difflib.get_close_matches(str(name).lower(), lowered, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {lowered[near[0]]}?"
    return f"; there is {', '.join(sorted(options))}" if options and list_all else ""
