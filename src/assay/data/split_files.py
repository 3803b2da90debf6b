"""Prepared data on disk: one file per split, with tensors of equal length."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors import safe_open

from assay.runs import artifacts, atomic_files

DTYPES = {
    "float32": "F32", "float64": "F64", "int64": "I64", "int32": "I32", "int16": "I16",
    "int8": "I8", "uint8": "U8", "bool": "BOOL",
}  # fmt: skip
ALIGNMENT_BYTES = 64
CHUNK_BYTES = 1 << 24  # read at once from an array, which may be larger than the memory
MAX_WINDOWS = 10_000_000  # of a stream: their order is kept in memory


def write(folder: Path, split: str, fields: dict[str, np.ndarray]) -> None:
    """Write the fields of a split, arrays whose first axis counts examples, in chunks.

    The format is safetensors, whose own writer needs all of the data in memory.
    """
    atomic_files.stream(folder / artifacts.split_file(split), lambda file: _write(file, fields))


def read(path: Path, fields: Iterable[str]) -> dict[str, Any]:
    """Read fields of a split as tensors on the CPU that are memory-mapped."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in fields}


def windows(tokens: Any, length: int, stride: int | None = None) -> Any:
    """Return overlapping windows of a stream of tokens, as a view of the same memory.

    Args:
        tokens: tensor (total,).
        length: tokens of a window.
        stride: tokens between the starts of windows; None for 1, or more if a long stream would
            have too many windows.

    Returns:
        Tensor (n, length).

    Raises:
        ValueError: the stream is shorter than a window.
    """
    if len(tokens) < length:
        raise ValueError(f"{len(tokens)} tokens, too few for a window of {length}")
    return tokens.unfold(0, length, stride or 1 + len(tokens) // MAX_WINDOWS)


def _write(file: IO[bytes], fields: dict[str, np.ndarray]) -> None:
    header, offset = {}, 0
    for name, array in fields.items():
        entry = {"dtype": DTYPES[array.dtype.name], "shape": list(array.shape)}
        header[name] = {**entry, "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % ALIGNMENT_BYTES)
    file.write(len(text).to_bytes(8, "little") + text)
    for array in fields.values():
        rows = max(1, CHUNK_BYTES // max(1, array[:1].nbytes))
        for start in range(0, len(array), rows):
            file.write(np.ascontiguousarray(array[start : start + rows]))
