"""What a plug-in takes and states, read from its text: nothing is imported."""

import ast
from dataclasses import dataclass
from functools import cache
from typing import Any

from assay import identity, plugins

BOUNDS = {"Gt": ">", "Ge": ">=", "Lt": "<", "Le": "<="}


@dataclass(frozen=True)
class Parameter:
    """A setting that a plug-in takes: a keyword-only argument of its entry point."""

    type: str
    bounds: tuple[tuple[str, float], ...]
    required: bool


class PluginError(ValueError):
    """A plug-in's file does not hold what its kind needs."""


@cache
def facts(dataset: str) -> dict[str, Any]:
    """What a data set's file states in its literal `FACTS`.

    Raises:
        PluginError: there is no such literal, or a key that every data set needs is missing.
    """
    for node in _tree("dataset", dataset).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FACTS":
            try:
                found = ast.literal_eval(node.value)
            except ValueError as error:
                raise _fault("dataset", dataset, "FACTS is not a plain literal") from error
            if not isinstance(found, dict) or not isinstance(found.get("examples"), dict):
                raise _fault(
                    "dataset", dataset, "FACTS needs `examples`: {'train': ..., 'validation': ...}"
                )
            return found
    raise _fault("dataset", dataset, "it defines no FACTS = {...}")


@cache
def parameters(kind: str, name: str) -> dict[str, Parameter]:
    """The settings that a plug-in takes, from the signature of its entry point.

    Raises:
        PluginError: the file has no entry point (`prepare`, `build`, or the class).
    """
    arguments = _entry_point(kind, name).args
    return {
        argument.arg: _parameter(argument.annotation, default)
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    }


def _entry_point(kind: str, name: str) -> ast.FunctionDef:
    wanted = {
        "dataset": "prepare",
        "model": "build",
        "objective": plugins.class_name(name),
    }[kind]
    for node in _tree(kind, name).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == wanted:
            body = node.body if isinstance(node, ast.ClassDef) else [node]
            function = "__init__" if isinstance(node, ast.ClassDef) else wanted
            for item in body:
                if isinstance(item, ast.FunctionDef) and item.name == function:
                    return item
            raise _fault(kind, name, f"class {wanted} has no __init__")
    raise _fault(kind, name, f"it defines no `{wanted}`")


@cache
def _tree(kind: str, name: str) -> ast.Module:
    try:
        return identity.parsed(plugins.path(kind, name))
    except identity.CodeError as error:
        raise PluginError(str(error)) from error


def _parameter(annotation: ast.expr | None, default: ast.expr | None) -> Parameter:
    """`Annotated[int, Gt(0)]` -> int, with the bound `> 0`."""
    bounds = []
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Annotated":
        annotation, *constraints = annotation.slice.elts  # type: ignore[attr-defined]
        for constraint in constraints:
            if isinstance(constraint, ast.Call) and ast.unparse(constraint.func) in BOUNDS:
                limit = ast.literal_eval(constraint.args[0])
                bounds.append((BOUNDS[ast.unparse(constraint.func)], limit))
    type_name = ast.unparse(annotation) if annotation else "Any"
    return Parameter(type_name, tuple(bounds), required=default is None)


def _fault(kind: str, name: str, what: str) -> PluginError:
    return PluginError(
        f"src/assay/{plugins.KINDS[kind]}/{name}.py: {what}; CONTRIBUTING.md shows the form"
    )


@cache
def constant(objective: str, name: str, default: Any) -> Any:
    """A literal that an objective's class states, such as `METRICS`."""
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
