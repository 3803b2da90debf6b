"""The batches of a training: their order, devices and types."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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
    loaded = batches.as_input(data)
    assert loaded["image"].tolist() == [[0.0, pytest.approx(0.2)], [1.0, pytest.approx(0.4)]]
    assert loaded["tokens"].dtype == torch.int64 and loaded["label"] is data["label"]


@given(
    count=st.integers(1, 40), size=st.integers(1, 40), seed=st.integers(0, 2**32 - 1),
    intervals=st.integers(1, 4), per_interval=st.integers(1, 5),
)  # fmt: skip
def test_batches_are_full_and_every_epoch_holds_each_example_once(
    count: int, size: int, seed: int, intervals: int, per_interval: int
) -> None:
    loaded = batches.Batches({"x": torch.arange(count)}, size, per_interval, seed)
    seen = [batch["x"] for _ in range(intervals) for batch in loaded]
    assert all(len(batch) == size for batch in seen)
    stream = torch.cat(seen).tolist()
    for start in range(0, len(stream) - count + 1, count):
        assert sorted(stream[start : start + count]) == list(range(count))


@given(count=st.integers(1, 40), size=st.integers(1, 9), number=st.integers(0, 50))
def test_a_batch_is_a_function_of_seed_and_number_alone(count: int, size: int, number: int) -> None:
    data = {"x": torch.arange(count)}
    one = batches.Batches(data, size, 3, seed=5).rows(number)
    torch.rand(7)
    assert torch.equal(one, batches.Batches(data, size, 11, seed=5).rows(number))


@given(count=st.integers(1, 200), max_size=st.integers(1, 50))
def test_validation_sees_each_example_once_in_order(count: int, max_size: int) -> None:
    loaded = batches.SequentialBatches({"x": torch.arange(count)}, max_size)
    seen = [batch["x"] for batch in loaded]
    assert torch.cat(seen).tolist() == list(range(count))
    assert len(seen) == len(loaded)
    assert max(map(len, seen)) <= max_size


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.int32, torch.int64])
def test_a_step_that_changes_its_batch_does_not_change_the_next_validation(
    dtype: torch.dtype,
) -> None:
    loaded = batches.SequentialBatches({"x": torch.arange(9).to(dtype)}, 4)
    first = [batch["x"].clone() for batch in loaded]
    for batch in loaded:
        batch["x"] *= 0
    assert all(torch.equal(batch["x"], before) for batch, before in zip(loaded, first, strict=True))


@settings(max_examples=40)
@given(
    count=st.integers(4, 40), share=st.integers(1, 9), devices=st.integers(1, 4),
    number=st.integers(0, 30), per_interval=st.integers(1, 5),
)  # fmt: skip
def test_devices_share_each_batch_of_one_device(
    count: int, share: int, devices: int, number: int, per_interval: int
) -> None:
    data, size = {"x": torch.arange(count)}, share * devices

    def batch(rank: int, world_size: int) -> torch.Tensor:
        stream = batches.Batches(data, size, per_interval, 5, rank=rank, world_size=world_size)
        stream.next = number
        return next(iter(stream))["x"]

    shares = [batch(rank, devices) for rank in range(devices)]
    assert {len(each) for each in shares} == {share}
    assert torch.equal(torch.stack(shares, dim=1).flatten(), batch(0, 1))
