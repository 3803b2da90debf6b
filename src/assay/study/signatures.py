"""What a plug-in takes and states, read from its text: nothing is imported."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from assay import plugins
from assay.runs import identity
from assay.runs.data_info import DataInfo

BOUNDS = {"Gt": ">", "Ge": ">=", "Lt": "<", "Le": "<="}
PATHS = ("Path", "pathlib.Path")  # either of them in a union, too, stands for the user's files
INHERITED = "def __init__(self, **inherited): pass"  # of a class that defines none


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


FILES = Parameter("Path", (), (), required=False, nullable=False)


class PluginError(ValueError):
    """A plug-in's file does not hold what its kind needs."""


@cache
def info(dataset: str) -> DataInfo:
    """Read what a data set's file states in its literal `INFO = DataInfo(...)`.

    Raises:
        PluginError: there is no such literal.
    """
    for node in _tree("dataset", dataset).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "INFO":
            if not isinstance(node.value, ast.Call) or ast.unparse(node.value.func) != "DataInfo":
                raise _fault("dataset", dataset, "INFO is not DataInfo(...)")
            try:
                stated = {each.arg: ast.literal_eval(each.value) for each in node.value.keywords}
                return DataInfo(**{"title": dataset, **stated})
            except (ValueError, TypeError) as error:
                what = f"INFO must be DataInfo with literal keyword arguments ({error})"
                raise _fault("dataset", dataset, what) from error
    raise _fault("dataset", dataset, "it defines no INFO = DataInfo(...)")


@cache
def parameters(kind: str, name: str) -> dict[str, Parameter]:
    """The settings that a plug-in takes, from the signature of its entry point.

    What is the user's own may take them by place as well, and may take the `info` of the data.

    Raises:
        PluginError: the file has no entry point (`prepare`, `train`, `build`, or the class).
    """
    arguments = _entry_point(kind, name).args
    pairs = list(zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True))
    if plugins.is_own(kind, name):
        placed = [*arguments.posonlyargs, *arguments.args]
        without = [None] * (len(placed) - len(arguments.defaults))
        pairs += zip(placed, [*without, *arguments.defaults], strict=True)
        pairs = [pair for pair in pairs if pair[0].arg not in ("self", "info")]
    return {argument.arg: parameter(argument.annotation, default) for argument, default in pairs}


def is_library(model: str) -> bool:
    """Whether a model's file takes the name of a network of another library."""
    return len(_entry_point("model", model).args.args) > 1


@cache
def inputs(model: str) -> tuple[str, ...] | None:
    """What a model's file says that it takes, `image` or `text`; None where it does not say."""
    if plugins.is_own("model", model):
        return None
    for node in _tree("model", model).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "INPUTS":
            return ast.literal_eval(node.value)
    return None


def is_open(kind: str, name: str) -> bool:
    """Whether something of the user's may take more than its own text tells."""
    return plugins.is_own(kind, name) and _entry_point(kind, name).args.kwarg is not None


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
                return ast.parse(INHERITED).body[0]  # type: ignore[return-value]
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


def parameter(annotation: ast.expr | None, default: ast.expr | None) -> Parameter:
    """`Annotated[int, Gt(0)]` -> int, with the bound `> 0`."""
    bounds = []
    annotation, nullable = _without_none(annotation)
    if isinstance(annotation, ast.Subscript) and _last(annotation.value) == "Annotated":
        annotation, *constraints = annotation.slice.elts  # type: ignore[attr-defined]
        annotation, within = _without_none(annotation)
        nullable |= within
        for constraint in constraints:
            if isinstance(constraint, ast.Call) and _last(constraint.func) in BOUNDS:
                limit = ast.literal_eval(constraint.args[0])
                bounds.append((BOUNDS[_last(constraint.func)], limit))
    choices: tuple[Any, ...] = ()
    if isinstance(annotation, ast.Subscript) and _last(annotation.value) == "Literal":
        found = ast.literal_eval(annotation.slice)
        choices = found if isinstance(found, tuple) else (found,)
    type_name = ast.unparse(annotation) if annotation else "Any"
    return Parameter(type_name, tuple(bounds), choices, default is None, nullable)


def _without_none(annotation: ast.expr | None) -> tuple[ast.expr | None, bool]:
    """`int | None` -> int, and whether there was a None; a path counts before what else may be."""
    if annotation is None:
        return None, False
    members = list(_members(annotation))
    others = [each for each in members if ast.unparse(each) != "None"]
    nullable = len(others) < len(members)
    if any(ast.unparse(each) in PATHS for each in others):
        return ast.Name("Path"), nullable
    return (others[0] if len(others) == 1 else annotation), nullable


def _members(annotation: ast.expr) -> Iterator[ast.expr]:
    """The types of a union, however it is written."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        yield from _members(ast.parse(annotation.value, mode="eval").body)
    elif isinstance(annotation, ast.BinOp):
        yield from _members(annotation.left)
        yield from _members(annotation.right)
    elif isinstance(annotation, ast.Subscript) and _last(annotation.value) in ("Union", "Optional"):
        inner = annotation.slice
        for each in inner.elts if isinstance(inner, ast.Tuple) else [inner]:
            yield from _members(each)
        if _last(annotation.value) == "Optional":
            yield ast.Constant(None)
    else:
        yield annotation


def _last(name: ast.expr) -> str:
    """`typing.Literal` -> Literal."""
    return ast.unparse(name).rpartition(".")[2]


def paths(kind: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Setting -> path, of the user's own files that a plug-in's settings name.

    The `arguments` of a `module` of the user's are such settings by that module's signature.
    """
    try:
        takes = parameters(kind, settings["name"])
    except PluginError:
        return {}  # another library's code, which may be anywhere
    found = {k: settings.get(k) for k, each in takes.items() if each.type == "Path"}
    module, given = settings.get("module"), settings.get("arguments")
    if kind == "objective" and isinstance(module, str) and plugins.CODE.fullmatch(module) and given:
        inner = paths("model", {**given, "name": module})
        found |= {f"arguments.{key}": value for key, value in inner.items()}
    return {key: value for key, value in found.items() if value is not None}


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
def defines(objective: str, method: str) -> bool:
    """Whether an objective's class defines a method."""
    name = plugins.class_name(plugins.split(objective)[0])
    return any(
        isinstance(item, ast.FunctionDef) and item.name == method
        for node in _tree("objective", objective).body
        if isinstance(node, ast.ClassDef) and node.name == name
        for item in node.body
    )


@cache
def functions(module: str) -> list[str]:
    """The public functions that a module of the package defines at its top level."""
    tree = identity.parsed(plugins.FOLDER / f"{module}.py")
    names = (node.name for node in tree.body if isinstance(node, ast.FunctionDef))
    return [name for name in names if not name.startswith("_")]
