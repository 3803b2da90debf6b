"""Class labels of images and of texts."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from assay.data.messages import data_error, printable
from assay.runs.artifacts import SPLITS


def encode(class_names: Sequence[str]) -> tuple[list[str], np.ndarray]:
    """Number the classes: by value if all names are whole numbers, otherwise alphabetically.

    Args:
        class_names: of each example.

    Returns:
        The different names, in the order of their labels; the label of each example, int64 (n,).
    """
    names = sorted(set(class_names))
    if all(name.isascii() and name.isdigit() for name in names):
        names.sort(key=lambda name: (int(name), name))
    labels = {name: label for label, name in enumerate(names)}
    return names, np.array([labels[name] for name in class_names], np.int64)


def check_every_split(
    noun: str, names: Sequence[str], labels: np.ndarray, splits: Sequence[str | None], where: str
) -> None:
    """Check that each split has an example of each class.

    Args:
        noun: what an example is, such as `image`.
        names: of the classes.
        labels: class of each example.
        splits: split of each example; None for one that is left out.
        where: the folder or file, for the message.

    Raises:
        JobError: a split has none of a class.
    """
    counts = Counter(zip(labels.tolist(), splits, strict=True))
    missing = [
        f"{printable(name)}: none in {split}"
        for label, name in enumerate(names)
        for split in SPLITS
        if not counts[label, split]
    ]
    if missing:
        remedy = f"each split needs at least one {noun} of each class that no other split has"
        raise data_error(where, f"classes have too few different {noun}s", missing, remedy)


def count_contradictions(keys: Sequence[bytes], labels: np.ndarray) -> int:
    """Count the different examples that have more than one label."""
    pairs = set(zip(keys, labels.tolist(), strict=True))
    return sum(count > 1 for count in Counter(key for key, _ in pairs).values())
