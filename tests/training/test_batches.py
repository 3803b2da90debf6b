"""The batches of a training: their devices and types."""

import pytest
import torch

from assay.data import split_files
from assay.training import batches


def test_windows_stay_views_on_another_device() -> None:
    windows = split_files.windows(torch.arange(1000, dtype=torch.int32), 11)
    there = batches.to_device({"tokens": windows}, torch.device("meta"))["tokens"]
    assert there.shape == windows.shape
    assert there.untyped_storage().nbytes() == windows.untyped_storage().nbytes()


def test_image_bytes_become_floats_from_0_to_1_and_tokens_int64() -> None:
    data = {
        "image": torch.tensor([[0, 51], [255, 102]], dtype=torch.uint8),
        "tokens": torch.tensor([[3], [4]], dtype=torch.int32),
        "label": torch.tensor([0, 1]),
    }
    found = batches.as_input(data)
    assert found["image"].tolist() == [[0.0, pytest.approx(0.2)], [1.0, pytest.approx(0.4)]]
    assert found["tokens"].dtype == torch.int64 and found["label"] is data["label"]
