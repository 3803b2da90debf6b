"""Files inside archives, read into memory: nothing is unpacked onto the disk."""

import errno
import gzip
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from assay.runs.errors import ExitCode, JobError, one_line

OPENERS = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ\x00": lzma.open}  # by a file's first bytes
PIECE_BYTES = 2**20
DAMAGE = (EOFError, RuntimeError, ValueError, OverflowError, struct.error, zlib.error,
          lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile)  # fmt: skip


def contents(path: Path, largest_bytes: int) -> bytes:
    """The content of a file; that of a gzip or xz file is unpacked.

    Args:
        path: the file; its first bytes tell what it is.
        largest_bytes: how long the content may be.

    Raises:
        JobError: it is damaged, or longer.
    """
    with _told(path), path.open("rb") as file:
        bounded = _Bounded(_unpacked(file), path, largest_bytes)
        return b"".join(iter(lambda: bounded.read(PIECE_BYTES), b""))


def members(
    path: Path, wanted: Collection[str] | re.Pattern[str], largest_bytes: int
) -> Iterator[tuple[str, bytes]]:
    """Read files of a tar (plain, gzip or xz) or zip archive, in the archive's order.

    Args:
        path: the archive.
        wanted: the names, each of which must be there, or a pattern for a whole name. A name has
            the folders inside the archive, with `/` between.
        largest_bytes: how much the whole archive may hold when it is unpacked.

    Yields:
        The name and the content of each wanted file.

    Raises:
        JobError: it is damaged, holds more, lacks a wanted name, or is not made of plain files
            and folders with names of their own below one place.
    """
    seen: set[str] = set()
    with path.open("rb") as file:
        read = _zip_members if file.read(2) == b"PK" else _tar_members
    with _told(path):
        yield from read(path, _Names(path, wanted, seen), largest_bytes)
    missing = set() if isinstance(wanted, re.Pattern) else {*wanted} - seen
    if missing:
        raise _fault(path, f"holds no {', '.join(sorted(missing))}")


class _Names:
    """Which members are wanted; refuses those that could lead out of the archive."""

    def __init__(
        self, path: Path, wanted: Collection[str] | re.Pattern[str], seen: set[str]
    ) -> None:
        self.path, self.wanted, self.seen = path, wanted, seen

    def choose(self, raw: str, is_file: bool, is_folder: bool) -> str | None:
        """The name of a wanted file; None for another member.

        Args:
            raw: the name as the archive has it.
            is_file: whether it is a plain file.
            is_folder: whether it is a folder; neither is a link or a device.
        """
        for kind in (PurePosixPath, PureWindowsPath):
            if kind(raw).anchor or ".." in kind(raw).parts:
                raise _fault(self.path, f"a member leads out of the archive: {raw!r}")
        if is_folder:
            return None
        if not is_file:
            raise _fault(self.path, f"a member is neither a file nor a folder: {raw!r}")
        name = str(PurePosixPath(raw))
        if name in self.seen:
            raise _fault(self.path, f"two members have one name: {name!r}")
        self.seen.add(name)
        if isinstance(self.wanted, re.Pattern):
            return name if self.wanted.fullmatch(name) else None
        return name if name in self.wanted else None


def _tar_members(path: Path, names: _Names, largest_bytes: int) -> Iterator[tuple[str, bytes]]:
    with path.open("rb") as file:
        bounded = _Bounded(_unpacked(file), path, largest_bytes)
        with tarfile.open(fileobj=bounded, mode="r|") as archive:  # type: ignore[call-overload]
            for member in archive:
                # a sparse file is short in the archive and can be long
                is_file = member.isfile() and not member.issparse()
                name = names.choose(member.name, is_file, member.isdir())
                if name is not None and (content := archive.extractfile(member)):
                    yield name, content.read()


def _zip_members(path: Path, names: _Names, largest_bytes: int) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > largest_bytes:
            raise _too_large(path, largest_bytes)
        for member in archive.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            is_file = kind in (0, stat.S_IFREG)
            name = names.choose(member.orig_filename, is_file, member.filename.endswith("/"))
            if name is None:
                continue
            if member.flag_bits & 1:
                raise _fault(path, f"a member is encrypted: {name!r}")
            yield name, archive.read(member)


def _unpacked(file: IO[bytes]) -> IO[bytes]:
    start = file.read(max(map(len, OPENERS)))
    file.seek(0)
    for magic, opener in OPENERS.items():
        if start.startswith(magic):
            return opener(file)  # type: ignore[return-value]
    return file


class _Bounded:
    """A stream that may not be longer than was said: a small file can unpack to any size."""

    def __init__(self, stream: IO[bytes], path: Path, largest_bytes: int) -> None:
        self.stream, self.path, self.largest_bytes = stream, path, largest_bytes
        self.left = largest_bytes

    def read(self, count: int) -> bytes:
        piece = self.stream.read(count)
        self.left -= len(piece)
        if self.left < 0:
            raise _too_large(self.path, self.largest_bytes)
        return piece


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (*DAMAGE, OSError) as error:
        # gzip raises an OSError without a number, and zip seeks to places that cannot be
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        what = one_line(error)
        raise _fault(path, f"damaged, or no archive that can be read ({what})") from error


def _too_large(path: Path, largest_bytes: int) -> JobError:
    return _fault(path, f"unpacks to more than the {largest_bytes} bytes that it may hold")


def _fault(path: Path, what: str) -> JobError:
    return JobError(
        f"{path}: {what}; get the file again from a source that you trust", ExitCode.DATA
    )
