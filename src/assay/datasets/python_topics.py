"""The help topics of Python, which are part of each interpreter: 0.4 MB of English."""

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
    source="the module pydoc_data.topics of the running Python: other versions have another text, "
    "so compare only results with equal SHA-256",
    licence="PSF-2.0",
    citation="Python Software Foundation: The Python language reference",
    split="topics with a common paragraph are in one split, which has that paragraph once; in the "
    "order of the SHA-256 of their names, 10 % of the characters for testing, 10 % for validation",
)
FRACTIONS = {"test": 0.1, "validation": 0.1}
MIN_CHARACTERS = 40  # a shorter paragraph can occur in two topics by chance


def prepare() -> tuple[dict[str, dict[str, Any]], DataInfo]:
    """Split the topics.

    Returns:
        Split -> {`text`: list of topics}, and the info.

    Raises:
        JobError: this Python has no topics.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        what = "this Python lacks the module pydoc_data.topics: use another, such as python.org's"
        raise JobError(f"data set python_topics: {what}", ExitCode.DATA) from error
    topics = dict(sorted(topics.items()))
    sha256 = hashlib.sha256(repr(list(topics.items())).encode()).hexdigest()
    return split(topics), INFO | {"sha256": sha256, "python": platform.python_version()}


def split(topics: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Assign each group of topics with a common paragraph to one split.

    Args:
        topics: name -> text.
    """
    groups = [_without_repeats([topics[name] for name in group]) for group in _groups(topics)]
    total = sum(map(len, topics.values()))
    room = {name: fraction * total for name, fraction in FRACTIONS.items()}
    texts: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    for group in groups:
        length = sum(map(len, group))
        name = next((name for name in FRACTIONS if length <= room[name]), "train")
        room[name] = room.get(name, 0) - length
        texts[name] += group
    return {name: {"text": documents} for name, documents in texts.items()}


def _groups(topics: Mapping[str, str]) -> list[list[str]]:
    """Return the names of each group, groups in the order of the SHA-256 of their first name."""
    group = {name: [name] for name in topics}
    first: dict[str, str] = {}
    for name, text in sorted(topics.items()):
        for paragraph in _paragraphs(text):
            other = group[first.setdefault(paragraph, name)]
            if len(paragraph) >= MIN_CHARACTERS and other is not group[name]:
                other += group[name]
                group |= {member: other for member in group[name]}
    distinct = {min(names): sorted(names) for names in group.values()}
    return [distinct[name] for name in sorted(distinct, key=_sha256)]


def _without_repeats(texts: list[str]) -> list[str]:
    """Keep only the first occurrence of each paragraph."""
    seen: set[str] = set()
    kept = []
    for text in texts:
        paragraphs = [part for part in text.split("\n\n") if part.strip() not in seen]
        seen.update(part for part in _paragraphs(text) if len(part) >= MIN_CHARACTERS)
        kept.append("\n\n".join(paragraphs))
    return [text for text in kept if text.strip()]


def _paragraphs(text: str) -> list[str]:
    return [part.strip() for part in text.split("\n\n")]


def _sha256(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
