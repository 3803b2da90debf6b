"""Preparing a data set: what is checked before its splits are written."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay import prepare
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError


def split(count: int, **fields: Any) -> dict[str, Any]:
    return {"image": np.zeros((count, 1, 2, 2), np.uint8), **fields}


SPLITS = {name: split(count) for name, count in (("train", 4), ("validation", 2), ("test", 2))}
LABELS = {**SPLITS, "train": split(4, label=np.array([0, 0, 0, 1]))}


def test_missing_properties_are_added() -> None:
    info = prepare._completed(DataInfo(classes=2), LABELS, "mine")
    assert info.examples == {"train": 4, "validation": 2, "test": 2}
    assert info.shape == (1, 2, 2) and info.labels_per_class == 1 and info.title == "mine"


@pytest.mark.parametrize(
    ("info", "splits", "words"),
    [
        (DataInfo(), {"train": split(1)}, "must return the splits"),
        (DataInfo(examples={"train": 5}), SPLITS, "INFO has examples="),
        (DataInfo(classes=2, labels_per_class=3), LABELS, "INFO has labels_per_class=3"),
        (DataInfo(), {**SPLITS, "test": split(0)}, "the test split is empty"),
        (DataInfo(), {**SPLITS, "test": split(2, label=np.zeros(3))}, "differ in length"),
        (DataInfo(), LABELS, "which need classes: set them in INFO"),
        (DataInfo(input="text", classes=2), LABELS, "which need max_length"),
    ],
)
def test_splits_that_contradict_the_info_are_refused(
    info: DataInfo, splits: dict[str, Any], words: str
) -> None:
    with pytest.raises(JobError, match=words) as caught:
        prepare._completed(info, splits, "mine")
    assert caught.value.code == ExitCode.DATA


def test_temporary_files_are_in_the_runs_folder_and_only_while_it_is_prepared(
    tmp_path: Path,
) -> None:
    before = tempfile.gettempdir()
    with pytest.raises(OSError, match="full"), prepare._temporary_folder(tmp_path) as folder:
        assert folder.parent == tmp_path and Path(tempfile.mkdtemp()).parent == folder
        raise OSError("full")
    assert tempfile.gettempdir() == before and not list(tmp_path.iterdir())
