"""Prepared data: written in pieces, read from the disk, cut into windows."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from safetensors.numpy import load_file
from support.checkout import PROJECT

from assay.data import split_files
from assay.training import batches

ARRAYS = st.sampled_from(sorted(split_files.TYPES)).flatmap(
    lambda kind: arrays(kind, array_shapes(min_dims=1, max_dims=3, max_side=5))
)
LARGE = """
import resource, sys
from pathlib import Path
import numpy as np
from assay.data import split_files
from assay.training import batches
folder = Path(sys.argv[1])
shape = (400, 1_000_000)  # 400 MB
source = np.lib.format.open_memmap(folder / "source", "w+", np.uint8, shape)
split_files.write(folder, "train", {"image": source})
data = split_files.read(folder / "train.safetensors", ["image"])
cut = batches.Batches(data, 4, 5, 0)
assert [b["image"].shape for b in cut] == [(4, 1_000_000)] * 5
print([line for line in open("/proc/self/status") if line.startswith("RssAnon")][0].split()[1])
"""


@given(st.dictionaries(st.sampled_from("abc"), ARRAYS, min_size=1))
def test_what_is_written_is_what_the_library_reads(fields: dict[str, np.ndarray]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        split_files.write(Path(folder), "train", fields)
        path = Path(folder, "train.safetensors")
        found = load_file(path)
        assert found.keys() == fields.keys()
        for name, array in fields.items():
            assert found[name].dtype == array.dtype and found[name].shape == array.shape
            assert found[name].tobytes() == array.tobytes()
            assert split_files.read(path, [name])[name].numpy().tobytes() == array.tobytes()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_data_larger_than_what_a_process_holds_is_written_and_cut(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(PROJECT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LARGE, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300_000  # kB, of which 400,000 would be the data alone


@given(st.integers(2, 60), st.integers(1, 12), st.integers(1, 12))
def test_windows_are_pieces_of_the_stream_and_share_its_memory(
    total: int, length: int, every: int
) -> None:
    tokens = torch.arange(total, dtype=torch.int32)
    if length > total:
        with pytest.raises(ValueError, match="too few"):
            split_files.windows(tokens, length, every)
        return
    found = split_files.windows(tokens, length, every)
    assert found.untyped_storage().data_ptr() == tokens.untyped_storage().data_ptr()
    for number, window in enumerate(found):
        assert window.tolist() == list(range(number * every, number * every + length))
    assert (len(found) - 1) * every + length <= total < len(found) * every + length


@given(st.integers(5, 40))
def test_windows_end_to_end_predict_each_token_but_the_first_once(total: int) -> None:
    found = split_files.windows(torch.arange(total), 5, 4)
    targets = found[:, 1:].flatten().tolist()
    assert targets == list(range(1, len(targets) + 1))
    assert total - 1 - len(targets) < 4


def test_windows_stay_a_view_where_they_are_moved() -> None:
    windows = split_files.windows(torch.arange(1000, dtype=torch.int32), 11)
    there = batches.moved(windows, torch.device("meta"))
    assert there.shape == windows.shape
    assert there.untyped_storage().nbytes() == windows.untyped_storage().nbytes()


def test_bytes_of_images_become_numbers_from_0_to_1_and_tokens_long_integers() -> None:
    data = {
        "image": torch.tensor([[0, 51], [255, 102]], dtype=torch.uint8),
        "tokens": torch.tensor([[3], [4]], dtype=torch.int32),
        "label": torch.tensor([0, 1]),
    }
    found = batches.as_input(data)
    assert found["image"].tolist() == [[0.0, pytest.approx(0.2)], [1.0, pytest.approx(0.4)]]
    assert found["tokens"].dtype == torch.int64 and found["label"] is data["label"]
