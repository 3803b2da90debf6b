"""1,797 handwritten digits of 8x8 pixels, which are part of scikit-learn."""

import hashlib
from pathlib import Path

import numpy as np

from assay.runs.data_info import DataInfo

INFO = DataInfo(
    title="Optical recognition of handwritten digits",
    source="https://archive.ics.uci.edu/dataset/80 (Alpaydin and Kaynak, 1998), its test part",
    licence="CC BY 4.0",
    sha256="09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22",
    split="of every five examples of a class, in the order of the file: three for training, one "
    "for validation, one for testing",
    shape=(1, 8, 8),
    classes=10,
    examples={"train": 1085, "validation": 357, "test": 355},
    labels_per_class=105,
)


def prepare() -> dict[str, dict[str, np.ndarray]]:
    """Read the digits and split them.

    Returns:
        Split -> {`image`: float32 (n, 1, 8, 8) from 0 to 1, `label`: int64 (n,)}.

    Raises:
        ValueError: the file is not the one that `INFO` describes.
    """
    from sklearn import datasets

    path = Path(datasets.__file__).parent / "data" / "digits.csv.gz"
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if sha256 != INFO.sha256:
        raise ValueError(f"{path} has SHA-256 {sha256}, expected {INFO.sha256}")
    digits = datasets.load_digits()
    images = (digits.images / 16).astype(np.float32)[:, None]
    labels = digits.target.astype(np.int64)
    index = _index_within_class(labels) % 5
    splits = {"train": index < 3, "validation": index == 3, "test": index == 4}
    return {name: {"image": images[rows], "label": labels[rows]} for name, rows in splits.items()}


def _index_within_class(labels: np.ndarray) -> np.ndarray:
    """Return the number of earlier examples of the same class, for each example."""
    index = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        index[rows] = np.arange(len(rows))
    return index
