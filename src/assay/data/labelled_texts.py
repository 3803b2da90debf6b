"""Texts with labels, made into the splits of a data set."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from assay.data import labelled_images, splitting
from assay.runs.artifacts import SPLITS
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

Splits = dict[str, dict[str, Any]]
DIGEST_BYTES = 16


@dataclass(frozen=True)
class Example:
    """A text with its label, and its split where that is fixed."""

    text: str
    label: str
    split: str | None = None


def collect(
    examples: Sequence[Example], shares: Mapping[str, float], max_length: int, where: str
) -> tuple[Splits, DataInfo]:
    """Divide texts within each class; equal ones never come into two splits.

    Args:
        examples: whose order decides nothing but the order in the splits.
        shares: of the splits that are divided by content, as in `division.divide`.
        max_length: how many tokens of a text count.
        where: the file, for messages.

    Returns:
        Split -> {`text`: list of str, `label`: int64 (n,)}, and the info.

    Raises:
        JobError: there is one class alone, or a split has none of a class, or the shares leave
            nothing to train.
    """
    labelled_images.check_shares(shares)
    names = labelled_images.ordered({example.label for example in examples})
    numbers = {name: number for number, name in enumerate(names)}
    labels = [numbers[example.label] for example in examples]
    keys = [key(example.text) for example in examples]
    parts = splitting.divide(keys, labels, [example.split for example in examples], shares)
    _check(names, labels, parts, where)
    splits = {split: _fields(examples, labels, parts, split) for split in SPLITS}
    return splits, DataInfo(
        input="text",
        classes=len(names),
        class_names=names,
        examples={split: len(fields["label"]) for split, fields in splits.items()},
        labels_per_class=int(np.bincount(splits["train"]["label"]).min()),
        max_length=max_length,
        left_out={"repeated": parts.count(None)},
        contradictions=labelled_images.contradictions(keys, labels),
    )


def key(text: str) -> bytes:
    """As good as random, and equal for equal texts."""
    return hashlib.sha256(text.encode()).digest()[:DIGEST_BYTES]


def _check(
    names: Sequence[str], labels: Sequence[int], parts: Sequence[str | None], where: str
) -> None:
    if len(names) < 2:
        what = (
            f"all texts have one label, {labelled_images.shown(names[0])}"
            if names
            else "has no text"
        )
        raise JobError(f"{where}: {what}: there is nothing to classify", ExitCode.DATA)
    labelled_images.check_classes("text", names, labels, parts, where)


def _fields(
    examples: Sequence[Example], labels: Sequence[int], parts: Sequence[str | None], split: str
) -> dict[str, Any]:
    rows = [row for row, part in enumerate(parts) if part == split]
    return {
        "text": [examples[row].text for row in rows],
        "label": np.array([labels[row] for row in rows], np.int64),
    }
