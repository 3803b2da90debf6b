"""The official data sets of images, and files of their format."""

import gzip
import hashlib
import importlib
import lzma
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.images import SPLITS, check_splits, refused

from assay.datasets import cifar10, fashion_mnist, mnist
from assay.runs import identity
from assay.study import plugin_settings, signatures

DATA = os.environ.get("ASSAY_DATA")
OFFICIAL = {"mnist": mnist, "fashion_mnist": fashion_mnist, "cifar10": cifar10}
FOLDERS = {"mnist": "mnist", "fashion_mnist": "fashion-mnist", "cifar10": "cifar10"}


@pytest.mark.parametrize("name", OFFICIAL)
def test_an_official_data_set_agrees_with_its_info(name: str) -> None:
    if not DATA or not Path(DATA, FOLDERS[name]).is_dir():
        pytest.skip(f"ASSAY_DATA is not a folder with {FOLDERS[name]}/")
    splits, info = OFFICIAL[name].prepare()
    stated = OFFICIAL[name].INFO
    check_splits(splits, info)
    assert info == stated
    if name == "cifar10":
        return  # decompressing takes ten seconds; fewer examples are tested with the others
    few, info = OFFICIAL[name].prepare(training_examples=200)
    assert info.examples == {**stated.examples, "train": 200}
    assert np.array_equal(few["train"]["image"], splits["train"]["image"][:200])
    check_splits(few, info)


@pytest.mark.parametrize("name", OFFICIAL)
def test_info_is_read_without_the_data(name: str) -> None:
    stated = signatures.info(name)
    needed = {"title", "source", "licence", "citation", "sha256", "split", "shape", "classes",
              "class_names", "examples", "labels_per_class"}  # fmt: skip
    assert needed <= stated.to_record().keys()
    assert plugin_settings.parameters("dataset", name).keys() == {"training_examples"}
    assert len(stated.class_names) == stated.classes == 10


def idx_file(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_official_idx(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """Write four small files in the format of MNIST; return their arrays."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    arrays, digests = {}, {}
    for part, count in (("train", 6040), ("t10k", 20)):
        arrays[f"{part}-images-idx3"] = random.integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"{part}-labels-idx1"] = np.arange(count, dtype=np.uint8) % 10
    for stem, array in arrays.items():
        content = gzip.compress(idx_file(array), 1)
        (folder / f"{stem}-ubyte.gz").write_bytes(content)
        digests[stem] = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(mnist, "INFO", mnist.INFO | {"sha256": digests})
    monkeypatch.setenv("ASSAY_DATA", str(folder.parent))
    return arrays


def test_files_like_those_of_mnist_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = write_official_idx(tmp_path / "mnist", monkeypatch)
    splits, info = mnist.prepare()
    examples = {"train": 40, "validation": 6000, "test": 20}
    assert info == mnist.INFO | {"examples": examples, "labels_per_class": 4}
    assert np.array_equal(splits["train"]["image"][:, 0], arrays["train-images-idx3"][:40])
    assert np.array_equal(splits["validation"]["label"], arrays["train-labels-idx1"][40:])
    assert np.array_equal(splits["test"]["image"][:, 0], arrays["t10k-images-idx3"])
    assert mnist.prepare(training_examples=15)[1].labels_per_class == 1
    assert "more than the 40" in refused(mnist.prepare, training_examples=41)


def write_batches(
    folder: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable, suffix: str
) -> dict[str, np.ndarray]:
    """Write six small batches in the format of CIFAR-10; return their rows."""
    random = np.random.default_rng(1)
    folder.mkdir(parents=True)
    tables = {}
    for name in cifar10.INFO.sha256:
        count = 20 if name == cifar10.TEST else 1004
        tables[name] = np.zeros((count, 3073), np.uint8)
        tables[name][:, -64:] = random.integers(0, 256, (count, 64), np.uint8)
        tables[name][:, 0] = np.arange(count) % 10
        (folder / f"{name}{suffix}").write_bytes(pack(tables[name].tobytes()))
    digests = {name: hashlib.sha256(table.tobytes()).hexdigest() for name, table in tables.items()}
    monkeypatch.setattr(cifar10, "INFO", cifar10.INFO | {"sha256": digests})
    monkeypatch.setenv("ASSAY_DATA", str(folder.parent))
    return tables


@pytest.mark.parametrize(
    ("pack", "suffix"), [(bytes, ""), (lambda content: lzma.compress(content, preset=0), ".xz")]
)
def test_batches_like_those_of_cifar10_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: Callable, suffix: str
) -> None:
    tables = write_batches(tmp_path / "cifar10", monkeypatch, pack, suffix)
    splits, info = cifar10.prepare()
    assert info.examples == {"train": 20, "validation": 5000, "test": 20}
    first = tables["data_batch_1.bin"][0]
    assert np.array_equal(splits["train"]["image"][0], first[1:].reshape(3, 32, 32))
    assert splits["validation"]["label"][-1] == tables["data_batch_5.bin"][-1, 0]
    check_splits(splits, cifar10.INFO | info)


def test_batches_are_read_from_an_archive_like_the_official_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_batches(tmp_path / "own" / "cifar10", monkeypatch, bytes, "")
    loose, _ = cifar10.prepare()
    (tmp_path / "packed" / "cifar10").mkdir(parents=True)
    base = str(tmp_path / "packed" / "cifar10" / "cifar-10-binary")
    (tmp_path / "own" / "cifar10").rename(tmp_path / "own" / "cifar-10-batches-bin")
    archive = Path(shutil.make_archive(base, "gztar", tmp_path / "own", "cifar-10-batches-bin"))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(cifar10, "ARCHIVE_SHA256", digest)
    monkeypatch.setenv("ASSAY_DATA", str(tmp_path / "packed"))
    packed, _ = cifar10.prepare()
    for split in SPLITS:
        assert np.array_equal(loose[split]["image"], packed[split]["image"])
        assert np.array_equal(loose[split]["label"], packed[split]["label"])


def test_a_damaged_and_a_missing_batch_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_batches(tmp_path / "cifar10", monkeypatch, bytes, "")
    batch = tmp_path / "cifar10" / "data_batch_3.bin"
    batch.write_bytes(batch.read_bytes()[:-1] + b"?")
    assert "data_batch_3.bin is damaged" in refused(cifar10.prepare)
    compressed = batch.with_name("data_batch_3.bin.xz")
    compressed.write_bytes(lzma.compress(batch.read_bytes(), preset=0)[:-9])
    batch.unlink()
    assert f"{compressed} is damaged" in refused(cifar10.prepare)
    compressed.unlink()
    assert "lacks data_batch_3.bin" in refused(cifar10.prepare)


@pytest.mark.parametrize("name", [*OFFICIAL, "image_folder", "csv_images"])
def test_a_study_can_set_what_prepare_takes(name: str) -> None:
    parameters = plugin_settings.parameters("dataset", name)
    module = importlib.import_module(f"assay.datasets.{name}")
    assert parameters.keys() == module.prepare.__kwdefaults__.keys() | {
        key for key, parameter in parameters.items() if parameter.required
    }
    assert f"assay/datasets/{name}.py" in identity.code_hashes(f"assay.datasets.{name}")
