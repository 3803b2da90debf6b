"""Files that are written completely or not at all, and survive a loss of power."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

PART = ".part"


def write(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    stream(path, lambda file: file.write(content))


def stream(path: Path, produce: Callable[[IO[bytes]], Any], name: str = "{}") -> tuple[Path, str]:
    """Write the output of a function into a file, atomically.

    Args:
        path: the file; its folder is created.
        produce: is called with the open file.
        name: final name of the file: `{}` is the last part of `path`, and `{digest}` the first 16
            characters of the content's SHA-256.

    Returns:
        The final path, and the SHA-256 of the content.

    Raises:
        OSError: nothing was written; an older file of this name is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}{PART}")
    try:
        with part.open("wb", buffering=0) as raw:
            hashing = _Hashing(raw)
            produce(hashing)
            os.fsync(raw.fileno())
        digest = hashing.sha256.hexdigest()
        final = path.with_name(name.format(path.name, digest=digest[:16]))
        part.replace(final)
        _sync_folder(final.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return final, digest


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    """Write the names in a folder to disk: a file system may delay a rename."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class _Hashing:
    """A file that hashes what is written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.sha256 = file, hashlib.sha256()

    def write(self, content: bytes) -> int:
        view = memoryview(content).cast("B")
        self.sha256.update(view)
        written = 0
        while written < len(view):
            written += self.file.write(view[written:])
        return written

    def flush(self) -> None:
        pass
