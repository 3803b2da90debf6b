"""Prepared data: written in chunks, memory-mapped, divided into windows."""

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

ARRAYS = st.sampled_from(sorted(split_files.DTYPES)).flatmap(
    lambda kind: arrays(kind, array_shapes(min_dims=1, max_dims=3, max_side=5))
)
LARGE = """
import sys
from pathlib import Path
import numpy as np
from assay.data import split_files
from assay.training import batches
def memory_kb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1])
folder, before = Path(sys.argv[1]), memory_kb()
shape = (120, 1_000_000)  # 120 MB
source = np.lib.format.open_memmap(folder / "source", "w+", np.uint8, shape)
split_files.write(folder, "train", {"image": source})
data = split_files.read(folder / "train.safetensors", ["image"])
cut = batches.Batches(data, 4, 5, 0)
assert [b["image"].shape for b in cut] == [(4, 1_000_000)] * 5
print(memory_kb() - before)
"""


@given(st.dictionaries(st.sampled_from("abc"), ARRAYS, min_size=1))
def test_the_library_reads_what_was_written(fields: dict[str, np.ndarray]) -> None:
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


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_data_is_written_and_batched_without_holding_it_in_memory(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(PROJECT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", LARGE, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 60_000  # kB; the data has 120,000


@given(st.integers(2, 60), st.integers(1, 12), st.integers(1, 12))
def test_windows_are_views_of_the_stream(total: int, length: int, every: int) -> None:
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
def test_adjacent_windows_predict_each_token_except_the_first_once(total: int) -> None:
    found = split_files.windows(torch.arange(total), 5, 4)
    targets = found[:, 1:].flatten().tolist()
    assert targets == list(range(1, len(targets) + 1))
    assert total - 1 - len(targets) < 4
