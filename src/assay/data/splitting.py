"""Assign examples to splits: by their content, so that their order does not matter."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

PRIORITY = ("test", "validation", "train")  # a test example must not be in the training split
Fields = dict[str, np.ndarray]


def check_fractions(fractions: Mapping[str, float]) -> None:
    """Check that the fractions of the other splits leave examples for training.

    Raises:
        JobError: they do not.
    """
    if (total := sum(fractions.values())) >= 1:
        what = f"validation_fraction and test_fraction add up to {total:g}, which leaves nothing to"
        raise JobError(f"{what} train: their sum must be below 1", ExitCode.DATA)


def split_examples(
    keys: Sequence[bytes],
    labels: Sequence[int],
    fixed: Sequence[str | None],
    fractions: Mapping[str, float],
) -> list[str | None]:
    """Split the examples of each class in the order of their keys.

    Examples with equal keys never come into two splits, even if their classes differ.

    Args:
        keys: equal for equal examples, and otherwise random, like the hash of a file.
        labels: class of each example.
        fixed: split of each example; None for one that is to be assigned.
        fractions: split -> its fraction of the examples that are to be assigned, for all splits
            but `train`. A split gets at least one example of each class, if there are enough.

    Returns:
        The split of each example; None for one that equals an example whose fixed split has
        priority: test before validation before train.
    """
    owners: dict[bytes, str] = {}
    for owner in PRIORITY:
        for key, split in zip(keys, fixed, strict=True):
            if split == owner:
                owners.setdefault(key, owner)
    counts: dict[int, Counter[bytes]] = {}
    for key, label, split in zip(keys, labels, fixed, strict=True):
        if split is None and key not in owners:
            counts.setdefault(label, Counter())[key] += 1
    assigned: dict[bytes, str] = {}
    for label in sorted(counts):
        _split_class(counts[label], fractions, assigned)
    return [
        (split if owners[key] == split else None) if split else assigned.get(key)
        for key, split in zip(keys, fixed, strict=True)
    ]


def _split_class(
    counts: Counter[bytes], fractions: Mapping[str, float], assigned: dict[bytes, str]
) -> None:
    """Add the keys of a class to `assigned`, which has the keys of earlier classes."""
    targets = {split: max(1, round(part * counts.total())) for split, part in fractions.items()}
    sizes = Counter(dict.fromkeys(targets, 0))
    for key in counts.keys() & assigned.keys():
        sizes[assigned[key]] += counts[key]
    for key in sorted(counts.keys() - assigned.keys()):
        split = next((split for split in targets if sizes[split] < targets[split]), "train")
        assigned[key] = split
        sizes[split] += counts[key]


def split_off_validation(
    official: dict[str, Fields], validation: int, info: DataInfo, training_examples: int | None
) -> tuple[dict[str, Fields], DataInfo]:
    """Use the last examples of an official training split for validation.

    Args:
        official: `train` and `test`, the fields of each.
        validation: number of validation examples.
        info: of the data set.
        training_examples: number of training examples, the first ones; None for all that are left.

    Returns:
        The splits, and the info with their `examples` and `labels_per_class`.

    Raises:
        JobError: there are fewer than `training_examples`.
    """
    fields = official["train"]
    available = len(fields["label"]) - validation
    count = available if training_examples is None else training_examples
    if count > available:
        what = f"training_examples: {count} is more than the {available} that are available"
        raise JobError(f"{what}: lower it, or leave it out", ExitCode.DATA)
    splits = {
        "train": {name: array[:count] for name, array in fields.items()},
        "validation": {name: array[available:] for name, array in fields.items()},
        "test": official["test"],
    }
    labels = splits["train"]["label"]
    return splits, info | {
        "examples": {name: len(fields["label"]) for name, fields in splits.items()},
        "labels_per_class": int(np.bincount(labels, minlength=info.classes).min()),
    }
