"""Hashes of everything that a result depends on: settings, code, parents and seed."""

import ast
import hashlib
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from assay import plugins

SOURCE = Path(__file__).resolve().parents[2]
COMMENT = re.compile(r"/\*.*?\*/|\{#.*?#\}|<!--.*?-->", re.DOTALL)  # of CSS, jinja2 and HTML
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class CodeError(ValueError):
    """A source file of the project cannot be read or parsed; the text names file and line."""


def canonical(value: Any) -> str:
    """Return JSON text that is the same for equal values, whatever the order of their keys.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def hash_of(value: Any) -> str:
    """Return 16 hexadecimal characters: 64 bits of the SHA-256 of a value's canonical JSON."""
    return _sha256(canonical(value))


def modules(stage: str, settings: dict[str, Any]) -> list[str]:
    """Return the modules that a stage runs: its own, and the plug-ins that its settings name."""
    used = (kind for kind in plugins.KINDS if kind in settings)
    return [
        f"assay.{stage}",
        *(name for kind in used for name in plugins.modules(kind, settings[kind])),
    ]


def run_hash(
    stage: str, settings: dict[str, Any], parents: dict[str, str], seed: int | None
) -> str:
    """Return the hash of a run: of everything that its result depends on.

    Args:
        stage: the module below `assay` that does the work.
        settings: all of its settings, device kind, precision and threads among them.
        parents: role, such as `data` or `weights`, -> hash of the parent run.
        seed: None where nothing is random.
    """
    return hash_of(
        {
            "stage": stage,
            "settings": settings,
            "code": _code_hash(*modules(stage, settings)),
            "parents": parents,
            "seed": seed,
        }
    )


@cache
def _code_hash(*names: str) -> str:
    return hash_of(code_hashes(*names))


@cache
def code_hashes(*names: str) -> dict[str, str]:
    """Hash each file that modules import from this project, themselves included.

    Comments, docstrings and formatting do not count. Imports are read from the source, so nothing
    is imported; a module that is chosen by name at run time has to be among `names`.

    Args:
        *names: dotted, such as `assay.finetune`.

    Returns:
        Path below src/ -> hash of the file's syntax tree.
    """
    hashes: dict[str, str] = {}
    queue = list(names)
    while queue:
        name = queue.pop()
        for module in _with_packages(name):
            path = module_file(module)
            if path and (key := path.relative_to(SOURCE).as_posix()) not in hashes:
                hashes[key], imports = _hash_file(path)
                queue.extend(imports)
    return dict(sorted(hashes.items()))


def template_hashes(folder: str) -> dict[str, str]:
    """Hash the templates and style sheets of a folder below src/, without comments and spacing."""
    hashes = {}
    for path in sorted((SOURCE / folder).iterdir()):
        if path.is_file():
            text = " ".join(COMMENT.sub("", path.read_text(errors="replace")).split())
            hashes[path.name] = _sha256(text)
    return hashes


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _with_packages(name: str) -> list[str]:
    """Return `a`, `a.b`, `a.b.c` for `a.b.c`: importing a module runs its packages too."""
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


@cache
def module_file(module: str) -> Path | None:
    """Return the file of one of this project's modules; None for one of another library."""
    base = SOURCE.joinpath(*module.split("."))
    candidates = (base.with_name(base.name + ".py"), base / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


@cache
def _is_ours(package: str) -> bool:
    return module_file(package) is not None or Path(SOURCE, package).is_dir()


def _hash_file(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return the hash of a file's syntax tree, and the project's modules that it may import."""
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return _hash_version(path, status.st_mtime_ns, status.st_size)


@cache
def _hash_version(path: Path, *version: int) -> tuple[str, tuple[str, ...]]:
    tree = parse(path)
    package = path.relative_to(SOURCE).with_suffix("").parts[:-1]
    imports = tuple(name for name in _imports(tree, package) if _is_ours(name.split(".")[0]))
    return _sha256(_canonical_tree(tree)), imports


def parse(path: Path) -> ast.Module:
    """Return the syntax tree of a file.

    Raises:
        CodeError: it cannot be read, or is not valid Python.
    """
    try:
        return ast.parse(path.read_bytes(), filename=str(path))
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        raise CodeError(f"src/{path.relative_to(SOURCE)}{line}: {error.msg}: fix it") from error
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> CodeError:
    return CodeError(f"src/{path.relative_to(SOURCE)}: cannot be read: {error}")


def _imports(tree: ast.AST, package: tuple[str, ...]) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join([*base, *([node.module] if node.module else [])])
            names += [source, *(f"{source}.{alias.name}" for alias in node.names)]
    return names


def _canonical_tree(node: Any) -> str:
    """Return a syntax tree as text that is the same on every Python version.

    Empty fields are left out, since newer versions add such fields.
    """
    if isinstance(node, list):
        return "[" + ",".join(map(_canonical_tree, node)) + "]"
    if not isinstance(node, ast.AST):
        return f"{type(node).__name__}:{node!r}"
    parts = []
    for name in node._fields:
        value = getattr(node, name, None)
        if name == "body" and isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False):
            value = value[1:]
        if value is not None and value != []:
            parts.append(f"{name}={_canonical_tree(value)}")
    return f"{type(node).__name__}({','.join(parts)})"
