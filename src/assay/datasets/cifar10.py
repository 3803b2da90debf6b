"""CIFAR-10: 60,000 colour photographs of ten classes, of 32x32 pixels."""

import hashlib
import lzma
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Gt

from assay.data import downloads, splitting
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

FOLDER = "cifar10"
ARCHIVE = "cifar-10-binary.tar.gz"
ARCHIVE_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
URLS = (
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    "https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets/"
    "cifar-10-binary.tar.gz",
)
TEST = "test_batch.bin"
VALIDATION_EXAMPLES = 5000
ROW_BYTES = 1 + 3 * 32 * 32  # a label, then the pixels, channels first
INFO = DataInfo(
    title="CIFAR-10",
    source="https://www.cs.toronto.edu/~kriz/cifar.html, binary version",
    licence="none stated; its page asks for the citation",
    citation="Krizhevsky (2009): Learning multiple layers of features from tiny images. "
    "Technical report, University of Toronto",
    sha256={
        "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
    },
    split="the five official training batches, except their last 5,000 images, which are for "
    "validation; the official test batch",
    shape=(3, 32, 32),
    classes=10,
    class_names=[
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    ],
    examples={"train": 45000, "validation": 5000, "test": 10000},
    labels_per_class=4468,
)  # fmt: skip


def prepare(
    *, training_examples: Annotated[int, Gt(0)] | None = None
) -> tuple[dict[str, dict[str, np.ndarray]], DataInfo]:
    """Get the six official batches and split them.

    They come from the official archive, or from `$ASSAY_DATA/cifar10/`, which may have the archive
    or the batches themselves, plain or compressed with xz (`test_batch.bin.xz`).

    Args:
        training_examples: number of training examples, the first ones; all by default.

    Returns:
        Split -> {`image`: uint8 (n, 3, 32, 32), `label`: int64 (n,)}, and the info.

    Raises:
        JobError: a batch cannot be downloaded, or is not the one that `INFO` describes.
    """
    batches = {name: _rows(name, content) for name, content in _contents()}
    test = batches.pop(TEST)
    train = np.concatenate([batches[name] for name in sorted(batches)])
    official = {"train": _fields(train), "test": _fields(test)}
    return splitting.split_off_validation(official, VALIDATION_EXAMPLES, INFO, training_examples)


def _contents() -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of each batch."""
    local = {name: path for name in INFO.sha256 if (path := _local_path(name))}
    if not local:
        with tarfile.open(downloads.fetch(ARCHIVE, URLS, ARCHIVE_SHA256, FOLDER)) as archive:
            for member in archive:
                if (name := Path(member.name).name) in INFO.sha256:
                    yield name, archive.extractfile(member).read()
    elif missing := INFO.sha256.keys() - local.keys():
        folder = next(iter(local.values())).parent
        what = f"{folder} lacks {', '.join(sorted(missing))}: put all six batches there, or none"
        raise JobError(what, ExitCode.DATA)
    for name, path in local.items():
        yield name, _read(path)


def _local_path(name: str) -> Path | None:
    """Return the path of the user's own copy of a batch, plain or compressed."""
    paths = (downloads.local_path(variant, FOLDER) for variant in (name, f"{name}.xz"))
    return next((path for path in paths if path and path.is_file()), None)


def _read(path: Path) -> bytes:
    if path.suffix != ".xz":
        return path.read_bytes()
    try:
        return lzma.decompress(path.read_bytes())
    except lzma.LZMAError as error:
        raise JobError(f"{path} is damaged ({error}): replace it", ExitCode.DATA) from error


def _rows(name: str, content: bytes) -> np.ndarray:
    """Check a batch and return its rows, uint8 (n, 3073)."""
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != INFO.sha256[name]:
        what = f"the SHA-256 of its uncompressed content is {sha256}, expected {INFO.sha256[name]}"
        raise JobError(f"{name} is damaged or another file: {what}; replace it", ExitCode.DATA)
    return np.frombuffer(content, np.uint8).reshape(-1, ROW_BYTES)


def _fields(rows: np.ndarray) -> dict[str, np.ndarray]:
    return {"image": rows[:, 1:].reshape(-1, *INFO.shape), "label": rows[:, 0].astype(np.int64)}
