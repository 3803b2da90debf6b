"""Split texts with class labels."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from assay.data import class_labels, splitting
from assay.data.messages import printable
from assay.runs.artifacts import SPLITS
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

Splits = dict[str, dict[str, Any]]
KEY_BYTES = 16


@dataclass(frozen=True)
class Example:
    """A text with the name of its class, and its split if that is fixed."""

    text: str
    class_name: str
    split: str | None = None


def collect(
    examples: Sequence[Example], fractions: Mapping[str, float], max_length: int, where: str
) -> tuple[Splits, DataInfo]:
    """Split texts within each class; equal texts never come into two splits.

    Args:
        examples: their order affects only the order within the splits.
        fractions: of the splits that are not fixed, as in `splitting.split_examples`.
        max_length: number of tokens to which a text is truncated or padded.
        where: the file, for messages.

    Returns:
        Split -> {`text`: list of str, `label`: int64 (n,)}; and what the examples show of the
        data set.

    Raises:
        JobError: there is only one class, a split has none of a class, or the fractions leave
            nothing to train.
    """
    splitting.check_fractions(fractions)
    names, labels = class_labels.encode([example.class_name for example in examples])
    if len(names) < 2:
        what = f"all texts have one label, {printable(names[0])}" if names else "has no text"
        raise JobError(f"{where}: {what}: at least two classes are needed", ExitCode.DATA)
    keys = [key(example.text) for example in examples]
    fixed = [example.split for example in examples]
    assigned = splitting.split_examples(keys, labels.tolist(), fixed, fractions)
    class_labels.check_every_split("text", names, labels, assigned, where)
    splits = {split: _fields(examples, labels, assigned, split) for split in SPLITS}
    return splits, DataInfo(
        input="text",
        classes=len(names),
        class_names=names,
        examples={split: len(fields["label"]) for split, fields in splits.items()},
        labels_per_class=int(np.bincount(splits["train"]["label"]).min()),
        max_length=max_length,
        left_out={"repeated": assigned.count(None)},
        contradictions=class_labels.count_contradictions(keys, labels),
    )


def key(text: str) -> bytes:
    """Return a hash of a text, by which `splitting.split_examples` orders it."""
    return hashlib.sha256(text.encode()).digest()[:KEY_BYTES]


def _fields(
    examples: Sequence[Example], labels: np.ndarray, assigned: Sequence[str | None], split: str
) -> dict[str, Any]:
    rows = [row for row, each in enumerate(assigned) if each == split]
    return {"text": [examples[row].text for row in rows], "label": labels[rows]}
