"""The prepared data: one file per split, each a table of tensors of equal length."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors import safe_open

from assay.runs import artifacts, atomic_files

TYPES = {
    "float32": "F32", "float64": "F64", "int64": "I64", "int32": "I32", "int16": "I16",
    "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
ALIGNMENT_BYTES = 64
PIECE_BYTES = 1 << 24  # of an array that are read at once: it may be larger than the memory
MOST_WINDOWS = 10_000_000  # of a stream: their order is kept in memory


def write(folder: Path, split: str, fields: dict[str, np.ndarray]) -> None:
    """Write a split's fields, arrays whose first axis counts examples, piece by piece.

    The form is that of safetensors, whose own writer wants all of it in memory.
    """
    atomic_files.stream(folder / artifacts.split_file(split), lambda file: _write(file, fields))


def read(path: Path, fields: Iterable[str]) -> dict[str, Any]:
    """Some fields of a split's file as tensors on the CPU that stay on the disk until read."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in fields}


def windows(tokens: Any, length: int, every: int | None = None) -> Any:
    """Overlapping pieces of a stream of tokens, as a view of the same memory.

    Args:
        tokens: tensor (total,).
        length: tokens of a window.
        every: how far apart windows begin; None takes one, or more where a stream is so long that
            there would be too many.

    Returns:
        Tensor (n, length).

    Raises:
        ValueError: the stream is shorter than a window.
    """
    if len(tokens) < length:
        raise ValueError(f"{len(tokens)} tokens: too few for a window of {length}")
    return tokens.unfold(0, length, every or 1 + len(tokens) // MOST_WINDOWS)


def _write(file: IO[bytes], fields: dict[str, np.ndarray]) -> None:
    header, place = {}, 0
    for name, array in fields.items():
        entry = {"dtype": TYPES[array.dtype.name], "shape": list(array.shape)}
        header[name] = {**entry, "data_offsets": [place, place + array.nbytes]}
        place += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % ALIGNMENT_BYTES)
    file.write(len(text).to_bytes(8, "little") + text)
    for array in fields.values():
        rows = max(1, PIECE_BYTES // max(1, array[:1].nbytes))
        for start in range(0, len(array), rows):
            file.write(np.ascontiguousarray(array[start : start + rows]))
