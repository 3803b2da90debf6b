"""The settings that a plug-in takes: types, bounds and defaults in the text of its signature."""

import ast
import functools
import operator
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, make_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt

from assay import plugins
from assay.study import signatures
from assay.study.structure import Section, plain

BOUNDS = {"Gt": Gt, "Ge": Ge, "Lt": Lt, "Le": Le}
NOT_JSON = object()  # stands for a default that a study cannot contain, such as a function
UserFile = Annotated[str, "the path of a file or folder"]
TYPES = {
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
    "list": list[Any],
    "Sequence": list[Any],
    "dict": dict[str, Any],
    "Path": UserFile,
}


@dataclass(frozen=True)
class Parameter:
    """A setting that a plug-in takes: a keyword-only argument of its entry point.

    Attributes:
        type: with its bounds; `UserFile`, or it or None, for files of the user's own.
        required: whether it has no default.
        default: its default; `NOT_JSON` where it has none, or one that JSON has no value for.
    """

    type: Any
    required: bool
    default: Any = NOT_JSON

    @property
    def field(self) -> Any:
        """The field of a dataclass for it."""
        return field() if self.required else field(default_factory=lambda: self.default)

    @property
    def is_file(self) -> bool:
        """True if it names the user's own files."""
        return UserFile in _members(self.type)


@dataclass(frozen=True, kw_only=True)
class OpenSection(Section):
    """Settings of the user's own code, which takes more than its signature names."""

    __pydantic_config__ = {"extra": "ignore"}


@cache
def parameters(kind: str, name: str) -> dict[str, Parameter]:
    """Return the settings that a plug-in takes, from the signature of its entry point.

    The user's own code may take them by position as well, and may take the `info` of the data.

    Raises:
        PluginError: the file has no entry point (`prepare`, `train`, `build`, or the class).
    """
    arguments = signatures.entry_point(kind, name).args
    pairs = list(zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True))
    if plugins.is_own(kind, name):
        placed = [*arguments.posonlyargs, *arguments.args]
        without = [None] * (len(placed) - len(arguments.defaults))
        pairs += zip(placed, [*without, *arguments.defaults], strict=True)
        pairs = [pair for pair in pairs if pair[0].arg not in ("self", "info")]
    return {argument.arg: parameter(argument.annotation, default) for argument, default in pairs}


@cache
def section(kind: str, name: str) -> type:
    """Return the dataclass of a plug-in's settings, `name` among them.

    Raises:
        PluginError: the file has no entry point (`prepare`, `train`, `build`, or the class).
    """
    fields = [
        (key, each.type, each.field)
        for key, each in parameters(kind, name).items()
        if key != "name"
    ]
    base = OpenSection if signatures.is_open(kind, name) else Section
    return make_dataclass(name, [("name", str), *fields], bases=(base,), kw_only=True, frozen=True)


def completed(kind: str, settings: Any) -> Any:
    """Add a plug-in's defaults to its settings, and leave out those that are None by default."""
    if not isinstance(settings, dict) or not isinstance(settings.get("name"), str):
        return settings
    try:
        takes = parameters(kind, settings["name"])
    except signatures.PluginError:
        return settings  # another library's code, which may be anywhere
    defaults = {key: each.default for key, each in takes.items() if each.default is not NOT_JSON}
    return {
        key: value
        for key, value in {**defaults, **settings}.items()
        if value is not None or defaults.get(key, NOT_JSON) is not None
    }


def parameter(annotation: ast.expr | None, default: ast.expr | None) -> Parameter:
    """Read a parameter from the text of its annotation and default."""
    kind = type_of(annotation)
    if default is None:
        return Parameter(kind, required=True)
    with suppress(ValueError):
        value = ast.literal_eval(default)
        value = list(value) if isinstance(value, tuple) and get_origin(kind) is list else value
        if _is_json(value):
            return Parameter(kind, required=False, default=plain(value))
    return Parameter(kind, required=False)


def _is_json(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_json, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    return value is None or isinstance(value, str | int | float | bool)


def type_of(annotation: ast.expr | None) -> Any:
    """Return the type that an annotation stands for; Any where it is not one of JSON's.

    `Annotated[int, Gt(0)] | None` is taken as it stands. A `Path` may be in a union with others.
    """
    match annotation:
        case ast.Constant(value=str(text)):
            return type_of(ast.parse(text, mode="eval").body)
        case ast.Constant(value=None):
            return NoneType
        case ast.BinOp(left=left, right=right):
            return _union([type_of(left), type_of(right)])
        case ast.Subscript(value=name, slice=ast.Tuple(elts=inner)):
            return _generic(signatures.last(name), inner)
        case ast.Subscript(value=name, slice=inner):
            return _generic(signatures.last(name), [inner])
        case ast.Name() | ast.Attribute():
            return TYPES.get(signatures.last(annotation), Any)
    return Any


def _generic(name: str, inner: list[ast.expr]) -> Any:
    """Return the type `name[inner]`."""
    if name == "Literal":
        return Literal[tuple(ast.literal_eval(each) for each in inner)]
    if name == "Annotated":
        bounds = [bound for bound in map(_bound, inner[1:]) if bound is not None]
        kinds = _members(type_of(inner[0]))
        return _union(k if k is NoneType or not bounds else Annotated[(k, *bounds)] for k in kinds)
    if name in ("Union", "Optional"):
        return _union([*map(type_of, inner), *([NoneType] if name == "Optional" else [])])
    is_list = name in ("list", "Sequence")
    return list[type_of(inner[0])] if is_list else TYPES.get(name, Any)


def _bound(node: ast.expr) -> Any:
    """Return a bound such as `Gt(0)`; None for what is none of these."""
    with suppress(ValueError):
        if isinstance(node, ast.Call) and (kind := BOUNDS.get(signatures.last(node.func))):
            return kind(ast.literal_eval(node.args[0]))
    return None


def _union(kinds: Iterable[Any]) -> Any:
    kinds = [each for kind in kinds for each in _members(kind)]
    if UserFile in kinds:
        return UserFile | None if NoneType in kinds else UserFile
    return Any if Any in kinds else functools.reduce(operator.or_, kinds)


def _members(kind: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the type itself."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def paths(kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the user's own files that a plug-in's settings name: setting -> path.

    The `arguments` of a `module` of the user's are such settings by that module's signature.
    """
    try:
        takes = parameters(kind, settings["name"])
    except signatures.PluginError:
        return {}  # another library's code, which may be anywhere
    found = {key: settings.get(key) for key, each in takes.items() if each.is_file}
    module, given = settings.get("module"), settings.get("arguments")
    if kind == "objective" and isinstance(module, str) and plugins.CODE.fullmatch(module) and given:
        inner = paths("model", {**given, "name": module})
        found |= {f"arguments.{key}": value for key, value in inner.items()}
    return {key: value for key, value in found.items() if value is not None}
