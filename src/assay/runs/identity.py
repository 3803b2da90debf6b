"""What a result depends on, as digests: settings, code, parents and seed."""

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
    """A file of the project that cannot be read as what it is; the text names file and line."""


def canonical(value: Any) -> str:
    """JSON text that is the same for equal values, whatever the order of their keys.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """16 hexadecimal characters (64 bits of SHA-256) of a value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


def modules(stage: str, settings: dict[str, Any]) -> list[str]:
    """The modules that a stage runs: its own, and those that its settings choose by name."""
    chosen = (kind for kind in plugins.KINDS if kind in settings)
    return [
        f"assay.{stage}",
        *(name for kind in chosen for name in plugins.modules(kind, settings[kind])),
    ]


def run(stage: str, settings: dict[str, Any], parents: dict[str, str], seed: int | None) -> str:
    """The digest of a run: of all that its result depends on.

    Args:
        stage: the module below `assay` that makes it.
        settings: all of its settings, device kind, precision and threads among them.
        parents: role -> digest of the run that plays it, such as `data` or `weights`.
        seed: None where nothing is random.
    """
    return digest(
        {
            "stage": stage,
            "settings": settings,
            "code": _code_digest(*modules(stage, settings)),
            "parents": parents,
            "seed": seed,
        }
    )


@cache
def _code_digest(*names: str) -> str:
    return digest(code(*names))


@cache
def code(*names: str) -> dict[str, str]:
    """Digest each file that modules import from this project, themselves included.

    Comments, docstrings and formatting do not count. Imports are followed in the text, so nothing
    is imported, and a module that is chosen by name at run time has to be among `names`.

    Args:
        *names: dotted, such as `assay.finetune`.

    Returns:
        Path below src/ -> digest of the file's meaning.
    """
    found: dict[str, str] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        for part in _with_packages(name):
            path = file(part)
            if path and (key := path.relative_to(SOURCE).as_posix()) not in found:
                found[key], imports = _read(path)
                waiting.extend(imports)
    return dict(sorted(found.items()))


def texts(folder: str) -> dict[str, str]:
    """Digest the templates and styles of a folder below src/, their comments and spacing apart."""
    found = {}
    for path in sorted((SOURCE / folder).iterdir()):
        if path.is_file():
            text = " ".join(COMMENT.sub("", path.read_text(errors="replace")).split())
            found[path.name] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return found


def _with_packages(name: str) -> list[str]:
    """`a.b.c` -> `a`, `a.b`, `a.b.c`: importing a module runs its packages too."""
    parts = name.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


@cache
def file(module: str) -> Path | None:
    """The file of one of this project's modules; None for one of another library."""
    base = SOURCE.joinpath(*module.split("."))
    candidates = (base.with_name(base.name + ".py"), base / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


@cache
def _is_ours(package: str) -> bool:
    return file(package) is not None or Path(SOURCE, package).is_dir()


def _read(path: Path) -> tuple[str, tuple[str, ...]]:
    """The digest of a file's meaning, and the project's modules that it may import."""
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return _read_once(path, found.st_mtime_ns, found.st_size)


@cache
def _read_once(path: Path, *version: int) -> tuple[str, tuple[str, ...]]:
    tree = parsed(path)
    package = path.relative_to(SOURCE).with_suffix("").parts[:-1]
    imports = tuple(name for name in _imports(tree, package) if _is_ours(name.split(".")[0]))
    return hashlib.sha256(_meaning(tree).encode()).hexdigest()[:16], imports


def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file.

    Raises:
        CodeError: it is no Python.
    """
    try:
        return ast.parse(path.read_bytes(), filename=str(path))
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        raise CodeError(f"src/{path.relative_to(SOURCE)}{line}: {error.msg}: mend it") from error
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
            origin = ".".join([*base, *([node.module] if node.module else [])])
            names += [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
    return names


def _meaning(node: Any) -> str:
    """A syntax tree as text, alike on every Python version that reads the same code.

    Fields that are empty are left out, since newer versions add such fields.
    """
    if isinstance(node, list):
        return "[" + ",".join(map(_meaning, node)) + "]"
    if not isinstance(node, ast.AST):
        return f"{type(node).__name__}:{node!r}"
    parts = []
    for name in node._fields:
        value = getattr(node, name, None)
        if name == "body" and isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False):
            value = value[1:]
        if value is not None and value != []:
            parts.append(f"{name}={_meaning(value)}")
    return f"{type(node).__name__}({','.join(parts)})"
