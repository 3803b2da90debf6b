"""The help topics of Python, which ship with each interpreter: 0.4 MB of English."""

import hashlib
import platform
from collections.abc import Mapping
from typing import Any

from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

INFO = DataInfo(
    input="text",
    depends_on_python=True,
    title="Help topics of Python",
    source="the module pydoc_data.topics of the Python that runs: another version has another "
    "text, so compare results of one digest alone",
    licence="PSF-2.0",
    citation="Python Software Foundation: The Python language reference",
    split="topics that share a paragraph stay together, and what they share counts once; in "
    "the order of the SHA-256 of names, 10 % of the characters test, 10 % validate",
)
SHARES = {"test": 0.1, "validation": 0.1}
SHORTEST = 40  # characters of a paragraph that tells of a common source


def prepare() -> tuple[dict[str, dict[str, Any]], DataInfo]:
    """Divide the topics.

    Returns:
        Split -> {`text`: list of topics}, and the info `sha256` and `python`.

    Raises:
        JobError: this Python has no topics.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        what = "this Python lacks the module pydoc_data.topics: use another, such as python.org's"
        raise JobError(f"data set python_topics: {what}", ExitCode.DATA) from error
    named = dict(sorted(topics.items()))
    found = hashlib.sha256(repr(list(named.items())).encode()).hexdigest()
    return divide(named), INFO | {"sha256": found, "python": platform.python_version()}


def divide(topics: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Give each group of topics that share a paragraph to one split.

    Args:
        topics: name -> text.
    """
    groups = [_without_repeats([topics[name] for name in group]) for group in _groups(topics)]
    room = {split: share * sum(map(len, topics.values())) for split, share in SHARES.items()}
    texts: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for group in groups:
        length = sum(map(len, group))
        split = next((split for split in SHARES if length <= room[split]), "train")
        room[split] = room.get(split, 0) - length
        texts[split] += group
    return {split: {"text": found} for split, found in texts.items()}


def _groups(topics: Mapping[str, str]) -> list[list[str]]:
    """The names of each group, groups in the order of their first names' digests."""
    group = {name: [name] for name in topics}
    first: dict[str, str] = {}
    for name, text in sorted(topics.items()):
        for paragraph in _paragraphs(text):
            other = group[first.setdefault(paragraph, name)]
            if len(paragraph) >= SHORTEST and other is not group[name]:
                other += group[name]
                group |= {member: other for member in group[name]}
    distinct = {min(names): sorted(names) for names in group.values()}
    return [distinct[name] for name in sorted(distinct, key=_digest)]


def _without_repeats(texts: list[str]) -> list[str]:
    """Each paragraph once, where it first stands."""
    seen: set[str] = set()
    kept = []
    for text in texts:
        paragraphs = [part for part in text.split("\n\n") if part.strip() not in seen]
        seen.update(part for part in _paragraphs(text) if len(part) >= SHORTEST)
        kept.append("\n\n".join(paragraphs))
    return [text for text in kept if text.strip()]


def _paragraphs(text: str) -> list[str]:
    return [part.strip() for part in text.split("\n\n")]


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
