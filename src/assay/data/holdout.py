"""Validation data for data sets that come with a training and a test part."""

import numpy as np

from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

Fields = dict[str, np.ndarray]


def last(
    parts: dict[str, Fields], validation: int, info: DataInfo, training_examples: int | None
) -> tuple[dict[str, Fields], DataInfo]:
    """Let the last examples of the training part validate, and all others, or a few, train.

    Args:
        parts: `train` and `test`, fields of each.
        validation: how many examples validate.
        info: of the data set.
        training_examples: how many train, the first ones; None for all that do not validate.

    Returns:
        The splits, and the info with their `examples` and `labels_per_class`.

    Raises:
        JobError: there are fewer than `training_examples`.
    """
    whole = parts["train"]
    most = len(whole["label"]) - validation
    count = most if training_examples is None else training_examples
    if count > most:
        what = f"training_examples is {count}, but {most} can train: leave it out, or lower it"
        raise JobError(what, ExitCode.DATA)
    splits = {
        "train": {name: array[:count] for name, array in whole.items()},
        "validation": {name: array[most:] for name, array in whole.items()},
        "test": parts["test"],
    }
    fewest = np.bincount(splits["train"]["label"], minlength=info.classes).min()
    return splits, info | {
        "examples": {name: len(fields["label"]) for name, fields in splits.items()},
        "labels_per_class": int(fewest),
    }
