"""What a plug-in takes and states, read from its text: nothing is imported."""

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from assay import identity, plugins

BOUNDS = {"Gt": ">", "Ge": ">=", "Lt": "<", "Le": "<="}


@dataclass(frozen=True)
class Parameter:
    """A setting that a plug-in takes: a keyword-only argument of its entry point.

    Attributes:
        type: such as `int`; `Path` for files of the user's own.
        bounds: such as `(">", 0)`.
        choices: the values that are possible; empty where that is not stated.
        required: whether it has no default.
        nullable: whether it may be null.
    """

    type: str
    bounds: tuple[tuple[str, float], ...]
    choices: tuple[Any, ...]
    required: bool
    nullable: bool


class PluginError(ValueError):
    """A plug-in's file does not hold what its kind needs."""


@cache
def facts(dataset: str) -> dict[str, Any]:
    """What a data set's file states in its literal `FACTS`.

    Raises:
        PluginError: there is no such literal.
    """
    for node in _tree("dataset", dataset).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FACTS":
            try:
                found = ast.literal_eval(node.value)
            except ValueError as error:
                raise _fault("dataset", dataset, "FACTS is not a plain literal") from error
            if not isinstance(found, dict):
                raise _fault("dataset", dataset, "FACTS is not a dict")
            return found
    raise _fault("dataset", dataset, "it defines no FACTS = {...}")


@cache
def parameters(kind: str, name: str) -> dict[str, Parameter]:
    """The settings that a plug-in takes, from the signature of its entry point.

    What is the user's own may take them by place as well, and may take the `facts` of the data.

    Raises:
        PluginError: the file has no entry point (`prepare`, `train`, `build`, or the class).
    """
    arguments = _entry_point(kind, name).args
    pairs = list(zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True))
    if plugins.is_own(kind, name):
        placed = [*arguments.posonlyargs, *arguments.args]
        without = [None] * (len(placed) - len(arguments.defaults))
        pairs += zip(placed, [*without, *arguments.defaults], strict=True)
        pairs = [pair for pair in pairs if pair[0].arg not in ("self", "facts")]
    return {argument.arg: _parameter(argument.annotation, default) for argument, default in pairs}


def _entry_point(kind: str, name: str) -> ast.FunctionDef:
    first, target = plugins.split(name)
    wanted = {
        "dataset": "prepare",
        "tokenizer": "train",
        "model": "build",
        "objective": plugins.class_name(first),
    }[kind]
    if own := plugins.is_own(kind, name):
        wanted = target
    for node in _tree(kind, name).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == wanted:
            body = node.body if isinstance(node, ast.ClassDef) else [node]
            function = "__init__" if isinstance(node, ast.ClassDef) else wanted
            for item in body:
                if isinstance(item, ast.FunctionDef) and item.name == function:
                    return item
            if own:
                return ast.parse("def __init__(self): pass").body[0]  # type: ignore[return-value]
            raise _fault(kind, name, f"class {wanted} has no __init__")
    raise _fault(kind, name, f"it defines no `{wanted}`")


@cache
def _tree(kind: str, name: str) -> ast.Module:
    try:
        return identity.parsed(_path(kind, name))
    except identity.CodeError as error:
        raise PluginError(str(error)) from error


def _path(kind: str, name: str) -> Path:
    first = plugins.split(name)[0]
    if plugins.is_own(kind, name) and (own := identity.file(first)):
        return own
    return plugins.path(kind, first)


def _parameter(annotation: ast.expr | None, default: ast.expr | None) -> Parameter:
    """`Annotated[int, Gt(0)]` -> int, with the bound `> 0`."""
    bounds = []
    annotation, nullable = _without_none(annotation)
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Annotated":
        annotation, *constraints = annotation.slice.elts  # type: ignore[attr-defined]
        annotation, within = _without_none(annotation)
        nullable |= within
        for constraint in constraints:
            if isinstance(constraint, ast.Call) and ast.unparse(constraint.func) in BOUNDS:
                limit = ast.literal_eval(constraint.args[0])
                bounds.append((BOUNDS[ast.unparse(constraint.func)], limit))
    choices: tuple[Any, ...] = ()
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Literal":
        found = ast.literal_eval(annotation.slice)
        choices = found if isinstance(found, tuple) else (found,)
    type_name = ast.unparse(annotation) if annotation else "Any"
    return Parameter(type_name, tuple(bounds), choices, default is None, nullable)


def _without_none(annotation: ast.expr | None) -> tuple[ast.expr | None, bool]:
    """`int | None` -> int, and whether there was a None."""
    if isinstance(annotation, ast.BinOp) and ast.unparse(annotation.right) == "None":
        return annotation.left, True
    return annotation, False


def paths(kind: str, settings: dict[str, Any]) -> list[str]:
    """The settings of a plug-in that name files of the user's own, where they are given."""
    try:
        takes = parameters(kind, settings["name"])
    except PluginError:
        return []  # another library's code, which may be anywhere
    return [k for k, p in takes.items() if p.type == "Path" and settings.get(k) is not None]


def _fault(kind: str, name: str, what: str) -> PluginError:
    where = _path(kind, name).relative_to(identity.SOURCE)
    return PluginError(f"src/{where}: {what}; CONTRIBUTING.md shows the form")


@cache
def constant(objective: str, name: str, default: Any) -> Any:
    """A literal that an objective's class states, such as `METRICS`."""
    objective = plugins.split(objective)[0]
    for node in _tree("objective", objective).body:
        if isinstance(node, ast.ClassDef) and node.name == plugins.class_name(objective):
            for item in node.body:
                if isinstance(item, ast.Assign) and ast.unparse(item.targets[0]) == name:
                    return ast.literal_eval(item.value)
    return default


@cache
def functions(module: str) -> list[str]:
    """The public functions that a module of the package defines at its top level."""
    tree = identity.parsed(plugins.FOLDER / f"{module}.py")
    names = (node.name for node in tree.body if isinstance(node, ast.FunctionDef))
    return [name for name in names if not name.startswith("_")]
