"""Reads what the file of a plug-in states, without importing it."""

import ast
from functools import cache
from pathlib import Path
from typing import Any

from assay import plugins
from assay.runs import identity
from assay.runs.data_info import DataInfo

INHERITED = "def __init__(self, **inherited): pass"  # of a class that defines none


class PluginError(ValueError):
    """A plug-in's file does not hold what its kind needs."""


@cache
def info(dataset: str) -> DataInfo:
    """Read what a data set's file states in its literal `INFO = DataInfo(...)`.

    Raises:
        PluginError: there is no such literal.
    """
    for node in tree("dataset", dataset).body:
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


def is_library(model: str) -> bool:
    """Return whether a model is a library, whose networks are chosen by name."""
    return len(entry_point("model", model).args.args) > 1


@cache
def inputs(model: str) -> tuple[str, ...] | None:
    """Return the inputs that a model's file states, `image` or `text`; None if it states none."""
    if plugins.is_own("model", model):
        return None
    for node in tree("model", model).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "INPUTS":
            return ast.literal_eval(node.value)
    return None


def is_open(kind: str, name: str) -> bool:
    """Return whether the user's code accepts arguments that its signature does not name."""
    return plugins.is_own(kind, name) and entry_point(kind, name).args.kwarg is not None


def entry_point(kind: str, name: str) -> ast.FunctionDef:
    first, target = plugins.split(name)
    wanted = {
        "dataset": "prepare",
        "tokenizer": "train",
        "model": "build",
        "objective": plugins.class_name(first),
    }[kind]
    if own := plugins.is_own(kind, name):
        wanted = target
    for node in tree(kind, name).body:
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
def tree(kind: str, name: str) -> ast.Module:
    try:
        return identity.parse(_path(kind, name))
    except identity.CodeError as error:
        raise PluginError(str(error)) from error


def _path(kind: str, name: str) -> Path:
    first = plugins.split(name)[0]
    if plugins.is_own(kind, name) and (own := identity.module_file(first)):
        return own
    return plugins.path(kind, first)


def last(name: ast.expr) -> str:
    """Return the last part of a dotted name: `typing.Literal` -> Literal."""
    return ast.unparse(name).rpartition(".")[2]


def _fault(kind: str, name: str, what: str) -> PluginError:
    where = _path(kind, name).relative_to(identity.SOURCE)
    return PluginError(f"src/{where}: {what}; CONTRIBUTING.md shows the form")


@cache
def constant(objective: str, name: str, default: Any) -> Any:
    """A literal that an objective's class states, such as `METRICS`."""
    objective = plugins.split(objective)[0]
    for node in tree("objective", objective).body:
        if isinstance(node, ast.ClassDef) and node.name == plugins.class_name(objective):
            for item in node.body:
                if isinstance(item, ast.Assign) and ast.unparse(item.targets[0]) == name:
                    return ast.literal_eval(item.value)
    return default


@cache
def defines(objective: str, method: str) -> bool:
    """Return whether an objective's class defines a method."""
    name = plugins.class_name(plugins.split(objective)[0])
    return any(
        isinstance(item, ast.FunctionDef) and item.name == method
        for node in tree("objective", objective).body
        if isinstance(node, ast.ClassDef) and node.name == name
        for item in node.body
    )


@cache
def functions(module: str) -> list[str]:
    """The public functions that a module of the package defines at its top level."""
    tree = identity.parse(plugins.FOLDER / f"{module}.py")
    names = (node.name for node in tree.body if isinstance(node, ast.FunctionDef))
    return [name for name in names if not name.startswith("_")]
