"""Data sets in the format of MNIST: four gzipped IDX files, two of images and two of labels.

Source: LeCun, The MNIST database of handwritten digits, section "File formats".
"""

import gzip
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from assay.data import downloads

PREFIXES = {"train": "train", "test": "t10k"}


def fetch(
    folder: str, urls: Sequence[str], sha256: Mapping[str, str]
) -> dict[str, dict[str, np.ndarray]]:
    """Get the four files and read them.

    Args:
        folder: of the data set, as in `downloads.fetch`.
        urls: addresses of folders that have the files.
        sha256: name of a file without its ending `-ubyte.gz` -> its SHA-256.

    Returns:
        `train` and `test` -> {`image`: uint8 (n, 1, height, width), `label`: int64 (n,)}.

    Raises:
        JobError: a file cannot be downloaded, or is damaged.
    """
    arrays = {}
    for stem, checksum in sha256.items():
        name = f"{stem}-ubyte.gz"
        path = downloads.fetch(name, [f"{url}{name}" for url in urls], checksum, folder)
        arrays[stem] = read(path)
    return {
        split: {
            "image": arrays[f"{prefix}-images-idx3"][:, None],
            "label": arrays[f"{prefix}-labels-idx1"].astype(np.int64),
        }
        for split, prefix in PREFIXES.items()
    }


def read(path: Path) -> np.ndarray:
    """Read a gzipped IDX file of unsigned bytes; return uint8, of the shape in its header."""
    content = gzip.decompress(path.read_bytes())
    dimensions = content[3]
    shape = struct.unpack_from(f">{dimensions}I", content, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
