"""The prepared data: one file per split, each a table of tensors of equal length."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

SPLITS = ("train", "validation", "test")


def path(folder: Path, split: str) -> Path:
    """The file of a split, such as `train.safetensors`."""
    return folder / f"{split}.safetensors"


def write(folder: Path, split: str, fields: dict[str, np.ndarray]) -> None:
    """Write a split's fields: arrays whose first axis counts examples."""
    path(folder, split).write_bytes(
        save({name: np.ascontiguousarray(array) for name, array in fields.items()})
    )


def read(folder: Path, split: str, fields: Iterable[str]) -> dict[str, Any]:
    """Read some fields of a split as tensors on the CPU; the others stay unread."""
    with safe_open(path(folder, split), framework="pt") as file:
        return {name: file.get_tensor(name) for name in fields}
