"""The prepared data: one file per split, each a table of tensors of equal length."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from assay import files, outputs


def write(folder: Path, split: str, fields: dict[str, np.ndarray]) -> None:
    """Write a split's fields: arrays whose first axis counts examples."""
    arrays = {name: np.ascontiguousarray(array) for name, array in fields.items()}
    files.write(folder / outputs.split(split), save(arrays))


def read(path: Path, fields: Iterable[str]) -> dict[str, Any]:
    """Read some fields of a split's file as tensors on the CPU; the others stay unread."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in fields}
