"""CIFAR-10: 60,000 photographs of ten kinds of things, of 32x32 coloured pixels."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Gt

from assay.data import archives, downloads, holdout
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
INSIDE = "cifar-10-batches-bin/"
TEST = "test_batch.bin"
VALIDATION = 5000
ROW_BYTES = 1 + 3 * 32 * 32
LARGEST_BYTES = 2**28  # of what is unpacked; the archive holds 185 million
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
    split="the five official training batches, whose last 5,000 images validate, and the "
    "official test batch",
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

    They come from the official archive, or from `$ASSAY_DATA/cifar10/`, where they may lie
    one by one too, as they are or with xz (`test_batch.bin.xz`).

    Args:
        training_examples: how many train, the first ones; all others where it is left out.

    Returns:
        Split -> {`image`: uint8 (n, 3, 32, 32), `label`: int64 (n,)}, and info on this call.

    Raises:
        JobError: a batch cannot be had, or is not the one that `INFO` describes.
    """
    batches = {name: rows(name, content) for name, content in _checked(_contents())}
    test = batches.pop(TEST)
    whole = np.concatenate([batches[name] for name in sorted(batches)])
    parts = {"train": _fields(whole), "test": _fields(test)}
    return holdout.last(parts, VALIDATION, INFO, training_examples)


def rows(name: str, content: bytes) -> np.ndarray:
    """The rows of a batch: uint8 (n, 3073), a label and then the pixels, channels first.

    Raises:
        JobError: it does not end with a whole row, or has a label above 9.
    """
    if len(content) % ROW_BYTES or not content:
        what = f"{name}: {len(content)} bytes are no whole number of rows of {ROW_BYTES} bytes"
        raise JobError(what, ExitCode.DATA)
    table = np.frombuffer(content, np.uint8).reshape(-1, ROW_BYTES)
    if (highest := table[:, 0].max()) >= INFO.classes:
        raise JobError(f"{name}: has the label {highest}; the highest is 9", ExitCode.DATA)
    return table


def _contents() -> Iterator[tuple[str, bytes]]:
    found = {name: path for name in INFO.sha256 if (path := _own(name))}
    if found and (missing := INFO.sha256.keys() - found.keys()):
        folder = next(iter(found.values())).parent
        what = f"{folder} lacks {', '.join(sorted(missing))}: put the six batches there, or none"
        raise JobError(what, ExitCode.DATA)
    if found:
        for name, path in found.items():
            yield name, archives.contents(path, LARGEST_BYTES)
        return
    archive = downloads.fetch(ARCHIVE, URLS, ARCHIVE_SHA256, FOLDER)
    wanted = [f"{INSIDE}{name}" for name in INFO.sha256]
    for name, content in archives.members(archive, wanted, LARGEST_BYTES):
        yield name.removeprefix(INSIDE), content


def _own(name: str) -> Path | None:
    """The user's own copy of a batch, as it is or with xz."""
    paths = (downloads.own_path(variant, FOLDER) for variant in (name, f"{name}.xz"))
    return next((path for path in paths if path and path.is_file()), None)


def _checked(contents: Iterator[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    for name, content in contents:
        found = hashlib.sha256(content).hexdigest()
        if found != INFO.sha256[name]:
            raise JobError(
                f"CIFAR-10's {name} is damaged or another file: its SHA-256, unpacked, is "
                f"{found}, expected {INFO.sha256[name]}; get it again",
                ExitCode.DATA,
            )
        yield name, content


def _fields(table: np.ndarray) -> dict[str, np.ndarray]:
    pixels = table[:, 1:].reshape(-1, *INFO.shape)
    return {"image": pixels, "label": table[:, 0].astype(np.int64)}
