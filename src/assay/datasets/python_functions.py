"""Functions of Python's standard library; the class is the package."""

import ast
import hashlib
import os
import platform
import textwrap
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Gt

from assay.data import labelled_texts
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

INFO = DataInfo(
    input="text",
    depends_on_python=True,
    title="Functions of Python's standard library",
    source="the source files of the running Python: other versions have other functions, so "
    "compare only results with equal SHA-256",
    licence="PSF-2.0",
    citation="Python Software Foundation: The Python standard library",
    split="within each class by the SHA-256 of the text: 15 % for testing, 15 % for validation; "
    "equal texts are in one split; functions of one file are in all splits",
    classes=8,
    class_names=["asyncio", "email", "importlib", "logging", "multiprocessing", "unittest",
                 "web", "xml"],
)  # fmt: skip
PACKAGES = {name: (name,) for name in INFO.class_names} | {"web": ("http", "urllib")}
FRACTIONS = {"test": 0.15, "validation": 0.15}
MIN_LINES = 4  # shorter functions say little about their package
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def prepare(
    *, max_length: Annotated[int, Gt(0)] = 256
) -> tuple[dict[str, dict[str, Any]], DataInfo]:
    """Read the functions and methods of eight packages; nested functions are part of the outer one.

    Args:
        max_length: number of tokens to which a function is truncated or padded.

    Returns:
        Split -> {`text`: list of str, `label`: int64 (n,)}, and the info.

    Raises:
        JobError: this Python lacks its source files.
    """
    library = Path(os.__file__).parent
    examples = [
        labelled_texts.Example(text, name)
        for name, packages in PACKAGES.items()
        for package in packages
        for text in _functions(library / package)
    ]
    if {example.class_name for example in examples} != set(PACKAGES):
        what = f"{library} lacks source files of the standard library: use another Python"
        raise JobError(f"data set python_functions: {what}", ExitCode.DATA)
    splits, info = labelled_texts.collect(examples, FRACTIONS, max_length, "python_functions")
    content = repr([(example.class_name, example.text) for example in examples])
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    return splits, info | {"sha256": sha256, "python": platform.python_version()}


def _functions(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*.py")):
        if not {"test", "tests"} & {*path.relative_to(folder).parts}:
            with tokenize.open(path) as file:
                source = file.read()
            lines = source.split("\n")
            for node in _outermost(ast.parse(source)):
                text = "\n".join(lines[node.lineno - 1 : node.end_lineno]) + "\n"
                if text.count("\n") >= MIN_LINES:
                    yield textwrap.dedent(text)


def _outermost(node: ast.AST) -> Iterator[Any]:
    """Yield the functions that are not part of another function."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, FUNCTIONS):
            yield child
        else:
            yield from _outermost(child)
