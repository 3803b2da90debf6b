"""Images with labels, one at a time, made into the splits of a data set."""

import hashlib
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO

import numpy as np

from assay.data import splitting
from assay.runs.artifacts import SPLITS
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

SHOWN = 10  # of the faults of one kind
TELL_SECONDS = 10


@dataclass(frozen=True)
class Example:
    """An image that was read, or was not.

    Attributes:
        name: of the file or the line, for messages.
        label: name of the class.
        split: where that is fixed.
        content: what identifies the image, such as the bytes of its file.
        image: uint8 (channels, height, width), or why there is none.
    """

    name: str
    label: str
    split: str | None
    content: bytes
    image: np.ndarray | str


@dataclass
class _Table:
    """What has been read; the pixels lie in a file."""

    labels: list[str] = field(default_factory=list)
    given: list[str | None] = field(default_factory=list)
    digests: list[tuple[bytes, bytes]] = field(default_factory=list)  # of the file, of the image
    faults: list[str] = field(default_factory=list)


def collect(
    examples: Iterable[Example],
    shape: tuple[int, int, int],
    shares: Mapping[str, float],
    where: str,
    skip: bool,
) -> tuple[dict[str, dict[str, np.ndarray]], DataInfo]:
    """Read examples one by one and divide them; the pixels need not fit into memory.

    Args:
        examples: in an order that depends on nothing but the data.
        shape: channels, height and width of all images.
        shares: of the splits that are divided by content, as in `division.divide`.
        where: the folder or the file, for messages.
        skip: whether to leave out what cannot be read.

    Returns:
        Split -> {`image`: uint8 (n, channels, height, width) in a file that goes with the
        process, `label`: int64 (n,)}, and the info.

    Raises:
        JobError: an image cannot be read and `skip` is false, or a split has none of a class, or
            the shares leave nothing to train.
    """
    check_shares(shares)
    with _disk_named(tempfile.gettempdir()), tempfile.TemporaryFile(buffering=2**20) as file:
        table = _read(examples, file, where)
        if table.faults and not skip:
            advice = "mend or remove what is named, or set `unreadable: skip` to leave it out"
            raise fault(where, "cannot be read", table.faults, advice)
        if not table.labels:
            raise JobError(f"{where}: holds no image that can be read", ExitCode.DATA)
        file.flush()
        images = np.memmap(file, np.uint8, "r+", shape=(len(table.labels), *shape))
    names = ordered(set(table.labels))
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.array([numbers[name] for name in table.labels], np.int64)
    keys = _keys(table.digests)
    parts = splitting.divide(keys, labels.tolist(), table.given, shares)
    check_classes("image", names, labels.tolist(), parts, where)
    if contradicting := contradictions(keys, table.labels):
        print(f"prepare: {contradicting} images have more than one class", flush=True)
    splits = _split(images, labels, parts)
    left_out = {"unreadable": len(table.faults), "repeated": parts.count(None)}
    if any(left_out.values()):
        print(
            f"prepare: left out {left_out['unreadable']} that cannot be read and "
            f"{left_out['repeated']} that are in a later split too",
            flush=True,
        )
    return splits, DataInfo(
        shape=shape,
        classes=len(names),
        class_names=names,
        examples={split: len(fields["label"]) for split, fields in splits.items()},
        labels_per_class=int(np.bincount(splits["train"]["label"]).min()),
        left_out=left_out,
        contradictions=contradicting,
    )


def ordered(names: Iterable[str]) -> list[str]:
    """Classes in the order of their numbers, if all are whole numbers, or else of their names."""
    if all(name.isascii() and name.isdigit() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def fault(where: str, what: str, faults: Sequence[str], advice: str) -> JobError:
    """An error that names the first few of what is wrong."""
    named = ", ".join(faults[:SHOWN])
    more = f" and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    return JobError(f"{where}: {len(faults)} {what} ({named}{more}): {advice}", ExitCode.DATA)


def shown(path: str | os.PathLike[str]) -> str:
    """A path that can be printed, whatever bytes its name has."""
    return repr(os.fsencode(path).decode("utf-8", "replace"))[1:-1]


def _read(examples: Iterable[Example], file: IO[bytes], where: str) -> _Table:
    table = _Table()
    told = time.monotonic()
    for example in examples:
        if isinstance(example.image, str):
            table.faults.append(f"{example.name}: {example.image}")
            print(f"prepare: {where}: {table.faults[-1]}", flush=True)
            continue
        pixels = np.ascontiguousarray(example.image).tobytes()
        file.write(pixels)
        table.labels.append(example.label)
        table.given.append(example.split)
        table.digests.append((_digest(example.content), _digest(pixels)))
        if time.monotonic() - told > TELL_SECONDS:
            told = time.monotonic()
            print(f"prepare: {where}: {len(table.labels)} images read", flush=True)
    return table


@contextmanager
def _disk_named(folder: str) -> Iterator[None]:
    """Let an error of a disk say where it is, which one of a temporary file does not."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or folder
        raise


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:16]


def _keys(digests: list[tuple[bytes, bytes]]) -> list[bytes]:
    """One key for files with equal bytes and for files that give equal images.

    It is the digest of a file, so that a division does not change with the size of the images.
    """
    keys: dict[bytes, bytes] = {}
    for content, pixels in digests:
        keys[pixels] = min(content, keys.get(pixels, content))
    return [keys[pixels] for _, pixels in digests]


def check_shares(shares: Mapping[str, float]) -> None:
    """Something must be left to train.

    Raises:
        JobError: it is not.
    """
    if sum(shares.values()) >= 1:
        what = "validation_fraction and test_fraction leave nothing to train: their sum must be below 1"
        raise JobError(what, ExitCode.DATA)


def check_classes(
    kind: str, names: Sequence[str], labels: Sequence[int], parts: Sequence[str | None], where: str
) -> None:
    """Each split must have some of each class.

    Args:
        kind: what the examples are, such as `image`.
        names: of the classes.
        labels: the class of each example.
        parts: the split of each example; None where it is left out.
        where: for messages.

    Raises:
        JobError: one has none.
    """
    found = Counter(zip(labels, parts, strict=True))
    empty = [
        f"{shown(name)}: none in {split}"
        for number, name in enumerate(names)
        for split in SPLITS
        if not found[number, split]
    ]
    if empty:
        advice = f"each split needs at least one {kind} of each class that no other split has"
        raise fault(where, f"classes have too few different {kind}s", empty, advice)


def contradictions(keys: Sequence[bytes], labels: Sequence[str]) -> int:
    """How many different examples have more than one class."""
    pairs = set(zip(keys, labels, strict=True))
    return sum(count > 1 for count in Counter(key for key, _ in pairs).values())


def _split(
    images: np.ndarray, labels: np.ndarray, parts: list[str | None]
) -> dict[str, dict[str, np.ndarray]]:
    """Bring the rows of a split together, in place: there may be no room for a copy."""
    rank = {split: number for number, split in enumerate((*SPLITS, None))}
    ranks = np.array([rank[part] for part in parts])
    order = np.argsort(ranks, kind="stable")
    _permute(images, order)
    ends = np.cumsum(np.bincount(ranks, minlength=len(rank)))
    return {
        split: {"image": images[start:end], "label": labels[order][start:end]}
        for split, start, end in zip(SPLITS, (0, *ends), ends, strict=False)
    }


def _permute(rows: np.ndarray, order: np.ndarray) -> None:
    """Let row i become what was row `order[i]`, along the cycles of the permutation."""
    done = np.zeros(len(order), bool)
    for start in range(len(order)):
        if done[start]:
            continue
        first, place = rows[start].copy(), start
        while not done[place]:
            done[place] = True
            source = order[place]
            rows[place] = first if source == start else rows[source]
            place = source
