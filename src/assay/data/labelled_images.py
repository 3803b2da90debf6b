"""Split images with class labels, which are read one at a time."""

import hashlib
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO

import numpy as np

from assay.data import class_labels, splitting
from assay.data.messages import data_error
from assay.runs.artifacts import SPLITS
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

PROGRESS_SECONDS = 10
HASH_BYTES = 16


@dataclass(frozen=True)
class Example:
    """An image that was read, or the reason why it cannot be.

    Attributes:
        name: of the file or the row, for messages.
        class_name: name of the class.
        split: the split, if it is fixed.
        content: what identifies the image, such as the bytes of its file.
        image: uint8 (channels, height, width), or why it cannot be read.
    """

    name: str
    class_name: str
    split: str | None
    content: bytes
    image: np.ndarray | str


@dataclass
class _Table:
    """The examples that were read, without their pixels, which are in a file."""

    class_names: list[str] = field(default_factory=list)
    splits: list[str | None] = field(default_factory=list)
    hashes: list[tuple[bytes, bytes]] = field(default_factory=list)  # of the file, of the pixels
    unreadable: list[str] = field(default_factory=list)


def collect(
    examples: Iterable[Example],
    shape: tuple[int, int, int],
    fractions: Mapping[str, float],
    where: str,
    skip: bool,
) -> tuple[dict[str, dict[str, np.ndarray]], DataInfo]:
    """Read examples one by one and split them; the pixels need not fit into memory.

    Args:
        examples: in an order that depends only on the data.
        shape: channels, height and width of all images.
        fractions: of the splits that are not fixed, as in `splitting.split_examples`.
        where: the folder or file, for messages.
        skip: whether to leave out images that cannot be read.

    Returns:
        Split -> {`image`: uint8 (n, channels, height, width) in a file that is deleted with the
        process, `label`: int64 (n,)}; and what the examples show of the data set.

    Raises:
        JobError: an image cannot be read and `skip` is false, a split has none of a class, or the
            fractions leave nothing to train.
    """
    splitting.check_fractions(fractions)
    with _name_disk(tempfile.gettempdir()), tempfile.TemporaryFile(buffering=2**20) as file:
        table = _read(examples, file, where)
        if table.unreadable and not skip:
            remedy = "repair or remove these, or set `unreadable: skip` to leave them out"
            raise data_error(where, "cannot be read", table.unreadable, remedy)
        if not table.class_names:
            raise JobError(f"{where}: has no image that can be read: add some", ExitCode.DATA)
        file.flush()
        images = np.memmap(file, np.uint8, "r+", shape=(len(table.class_names), *shape))
    names, labels = class_labels.encode(table.class_names)
    keys = _keys(table.hashes)
    assigned = splitting.split_examples(keys, labels.tolist(), table.splits, fractions)
    class_labels.check_every_split("image", names, labels, assigned, where)
    splits = _rearranged(images, labels, assigned)
    info = DataInfo(
        shape=shape,
        classes=len(names),
        class_names=names,
        examples={split: len(fields["label"]) for split, fields in splits.items()},
        labels_per_class=int(np.bincount(splits["train"]["label"]).min()),
        left_out={"unreadable": len(table.unreadable), "repeated": assigned.count(None)},
        contradictions=class_labels.count_contradictions(keys, labels),
    )
    _print_warnings(info)
    return splits, info


def _print_warnings(info: DataInfo) -> None:
    if info.contradictions:
        print(f"warning: {info.contradictions} images have more than one class", flush=True)
    if any(info.left_out.values()):
        print(
            f"prepare: left out {info.left_out['unreadable']} images that cannot be read and "
            f"{info.left_out['repeated']} that another split has",
            flush=True,
        )


def _read(examples: Iterable[Example], file: IO[bytes], where: str) -> _Table:
    table = _Table()
    printed = time.monotonic()
    for example in examples:
        if isinstance(example.image, str):
            table.unreadable.append(f"{example.name}: {example.image}")
            print(f"prepare: {where}: {table.unreadable[-1]}", flush=True)
            continue
        pixels = np.ascontiguousarray(example.image).tobytes()
        file.write(pixels)
        table.class_names.append(example.class_name)
        table.splits.append(example.split)
        table.hashes.append((_hash(example.content), _hash(pixels)))
        if time.monotonic() - printed > PROGRESS_SECONDS:
            printed = time.monotonic()
            print(f"prepare: {where}: {len(table.class_names)} images read", flush=True)
    return table


@contextmanager
def _name_disk(folder: str) -> Iterator[None]:
    """Add the folder to a disk's error, which for a temporary file does not name one."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or folder
        raise


def _hash(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:HASH_BYTES]


def _keys(hashes: list[tuple[bytes, bytes]]) -> list[bytes]:
    """Return one key for files with equal bytes and for files with equal pixels.

    It is the hash of a file, so that the splits do not depend on the size of the images.
    """
    keys: dict[bytes, bytes] = {}
    for content, pixels in hashes:
        keys[pixels] = min(content, keys.get(pixels, content))
    return [keys[pixels] for _, pixels in hashes]


def _rearranged(
    images: np.ndarray, labels: np.ndarray, assigned: list[str | None]
) -> dict[str, dict[str, np.ndarray]]:
    """Bring the rows of each split together, in place: a copy may be too large."""
    ranks = {split: rank for rank, split in enumerate((*SPLITS, None))}
    row_ranks = np.array([ranks[split] for split in assigned])
    order = np.argsort(row_ranks, kind="stable")
    _permute(images, order)
    ends = np.cumsum(np.bincount(row_ranks, minlength=len(ranks)))
    return {
        split: {"image": images[start:end], "label": labels[order][start:end]}
        for split, start, end in zip(SPLITS, (0, *ends), ends, strict=False)
    }


def _permute(rows: np.ndarray, order: np.ndarray) -> None:
    """Move row `order[i]` to row i, following the cycles of the permutation."""
    done = np.zeros(len(order), bool)
    for start in range(len(order)):
        if done[start]:
            continue
        first, row = rows[start].copy(), start
        while not done[row]:
            done[row] = True
            source = order[row]
            rows[row] = first if source == start else rows[source]
            row = source
