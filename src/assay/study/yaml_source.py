"""Reads the YAML text of a study, with the line of each key."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from assay.study.structure import Place

MOST_VALUES = 100_000  # after its aliases are expanded; a study has a few hundred
DEEPEST = 50
MISREAD = re.compile(r"[-+]?(0[0-9_]+|[0-9_]+(:[0-9.]+)+)")  # octal, and base 60
SCIENTIFIC = re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$")
TAG = "tag:yaml.org,2002:"
TAGS = {f"{TAG}{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map", "merge")}


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # the one in C is ten times faster
    """PyYAML's loader, for which `1e-3` is a number, as in YAML 1.2, and a date is text."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != f"{TAG}timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


Loader.add_implicit_resolver(f"{TAG}float", SCIENTIFIC, list("-+.0123456789"))


class SourceError(ValueError):
    """A file that is not a mapping in YAML; the text says why.

    Attributes:
        line: where, counted from 1; None where no line is to blame.
    """

    def __init__(self, what: str, line: int | None = None) -> None:
        super().__init__(what)
        self.line = line


@dataclass
class Source:
    """A study as its author wrote it.

    Attributes:
        study: its keys and values.
        lines: place of a key or of an entry of a list -> its line, counted from 1.
        problems: place and description of what YAML would misread.
    """

    study: dict[str, Any]
    lines: dict[Place, int] = field(default_factory=dict)
    problems: list[tuple[Place, str]] = field(default_factory=list)


def read(path: Path) -> Source:
    """Read a study.

    Raises:
        SourceError: the file cannot be read, or is not a mapping in YAML.
    """
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SourceError("there is no such file: name a study with --configfile") from error
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"is not UTF-8 text (byte {error.start})") from error


def parse(text: str) -> Source:
    """Parse the text of a study.

    Raises:
        SourceError: it is not a mapping in YAML.
    """
    try:
        _check_depth(text)
        loader = Loader(text)
        root = loader.get_single_node()
        found = Source({})
        _Index(found).add(root, (), ())
        found.study = loader.construct_document(root) if root else None
    except SourceError:
        raise
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise SourceError(f"is not valid YAML: {what}", mark and mark.line + 1) from error
    except (ValueError, RecursionError) as error:
        raise SourceError(f"is not valid YAML: {error}") from error
    if not isinstance(found.study, dict):
        kind = "is empty" if found.study is None else "is not a mapping (key: value)"
        raise SourceError(f"{kind}; config.yaml of the project shows what a study contains")
    return found


def value(text: str) -> Any:
    """Return the value that a text has in YAML; the text itself where it is not valid YAML."""
    try:
        return yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text


def _check_depth(text: str) -> None:
    """Refuse text that is nested so deeply that the loader in C would run out of stack."""
    depth = 0
    for event in yaml.parse(text, Loader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            line = event.start_mark.line + 1
            raise SourceError(f"is nested more than {DEEPEST} levels deep", line)


class _Index:
    """Collects lines, and problems that are lost once the YAML is Python objects."""

    def __init__(self, found: Source) -> None:
        self.found = found
        self.values = 0

    def add(self, node: Any, place: Place, within: tuple[Any, ...]) -> None:
        """Add a node and those below it; `within` holds the nodes above it."""
        self.values += 1
        if node is not None and (what := self._unreadable(node, place, within)):
            raise SourceError(what, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            self._scalar(node, place)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.found.lines[(*place, index)] = item.start_mark.line + 1
                self.add(item, (*place, index), (*within, node))
        elif isinstance(node, yaml.MappingNode):
            self._mapping(node, place, (*within, node))

    def _unreadable(self, node: Any, place: Place, within: tuple[Any, ...]) -> str | None:
        """Return why a node cannot be read; None where it can."""
        where = ".".join(map(str, place[:3])) or "the study"
        if node in within:
            return f"{where}: an alias (*name) refers to what contains it"
        if self.values > MOST_VALUES:
            return f"aliases (*name) expand to more than {MOST_VALUES} values: write them out"
        if len(within) > DEEPEST:
            return f"{where}: is nested more than {DEEPEST} levels deep"
        if node.tag not in TAGS:
            return f"{where}: the tag {node.tag.replace(TAG, '!!')} is not supported: delete it"
        return None

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> None:
        if node.tag in (f"{TAG}int", f"{TAG}float") and MISREAD.fullmatch(node.value):
            what = f"YAML reads {node.value} as {value(node.value)}"
            self.found.problems.append((place, f"{what}: write that number, or put it in quotes"))

    def _mapping(self, node: yaml.MappingNode, place: Place, within: tuple[Any, ...]) -> None:
        seen: dict[str, int] = {}
        for key, value in node.value:
            name, line = key.value, key.start_mark.line + 1
            if not isinstance(name, str):
                raise SourceError("a key must be text", line)
            if name in seen and name != "<<":
                what = f"is there twice, in lines {seen[name]} and {line}: delete one"
                self.found.problems.append(((*place, name), what))
            seen[name] = self.found.lines[(*place, name)] = line
            self.add(value, (*place, name), within)
