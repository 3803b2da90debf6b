"""Data sets in the form of MNIST: four IDX files, two of images and two of labels."""

import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from assay.data import archives, downloads
from assay.runs.errors import ExitCode, JobError

UNSIGNED_BYTE = 8  # IDX's code for the type of the values
LARGEST_BYTES = 2**27  # of an unpacked file; MNIST's largest has 47 million
PARTS = {"train": "train", "test": "t10k"}


def official(
    folder: str, urls: Sequence[str], sha256: Mapping[str, str]
) -> dict[str, dict[str, np.ndarray]]:
    """Get the four files and read them.

    Args:
        folder: of the data set, below the user's folder of data.
        urls: addresses below which the files stand.
        sha256: name of a file, without its end `-ubyte.gz`, -> its SHA-256.

    Returns:
        `train` and `test` -> {`image`: uint8 (n, 1, height, width), `label`: int64 (n,)}.

    Raises:
        JobError: a file cannot be had or read.
    """
    paths = {}
    for stem, digest in sha256.items():
        name = f"{stem}-ubyte.gz"
        paths[stem] = downloads.fetch(name, [f"{url}{name}" for url in urls], digest, folder)
    return {
        part: pairs(paths[f"{prefix}-images-idx3"], paths[f"{prefix}-labels-idx1"])
        for part, prefix in PARTS.items()
    }


def pairs(images: Path, labels: Path) -> dict[str, np.ndarray]:
    """Read a file of images and the file of their labels.

    Raises:
        JobError: one cannot be read, or they do not belong together.
    """
    pixels, classes = read(images), read(labels)
    if pixels.ndim != 3 or classes.shape != pixels.shape[:1]:
        raise JobError(
            f"{images.name} has the shape {pixels.shape}, {labels.name} {classes.shape}: they do "
            "not belong together",
            ExitCode.DATA,
        )
    return {"image": pixels[:, None], "label": classes.astype(np.int64)}


def read(path: Path) -> np.ndarray:
    """Read an IDX file of unsigned bytes, gzipped or not.

    Returns:
        uint8, of the shape that the file states.

    Raises:
        JobError: it is damaged or of another form.
    """
    content = archives.contents(path, LARGEST_BYTES)
    start = 4 + 4 * content[3] if len(content) > 3 else 4
    if content[:3] != bytes((0, 0, UNSIGNED_BYTE)) or len(content) < start:
        raise JobError(f"{path}: no IDX file of unsigned bytes", ExitCode.DATA)
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    whole = start + math.prod(shape)
    if len(content) != whole:
        raise JobError(
            f"{path}: {len(content)} bytes, where an IDX file of the shape {shape} has {whole}",
            ExitCode.DATA,
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
