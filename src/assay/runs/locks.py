"""File locks (flock) that end with the process that holds them, however it ends."""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

POLL_SECONDS = 0.1
WORKFLOW = Path(".snakemake", "assay.lock")  # held while a snakemake runs in this folder


@dataclass(frozen=True)
class Holder:
    """The process that holds a lock; without a `pid` it is not known, as for shared locks."""

    pid: int | None = None
    host: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.pid else "another process"


def acquire(
    path: Path, shared: bool = False, wait: bool = False, all_users: bool = False
) -> IO[str] | None:
    """Take a lock and write its holder into the file; return None if another process holds it.

    The lock is held until the returned file is closed or the process ends.

    Args:
        path: the file to lock; it and its folder are created.
        shared: let other processes hold the lock at the same time, if theirs is shared too.
        wait: block while another process holds the lock.
        all_users: let every user of the machine take the lock.

    Raises:
        OSError: the file cannot be opened, or its file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        file = _open(path, all_users)
        try:
            fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            if not _is_held(error):
                raise
            return None
        if _is_at(file, path):
            break
        file.close()  # it was deleted meanwhile: lock the file that is there now
    if file.writable():
        file.truncate(0)
        if not shared:
            json.dump(asdict(Holder(os.getpid(), socket.gethostname())), file)
            file.flush()
    return file


def holder(path: Path) -> Holder | None:
    """Return the holder of a lock; None if nobody holds it."""
    try:
        file = path.open()
    except FileNotFoundError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        except OSError as error:
            if not _is_held(error):
                raise
        with suppress(ValueError, TypeError):
            return Holder(**json.load(file))
        return Holder()


@contextmanager
def hold(path: Path, report: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock for the length of a block, and wait while another process holds it.

    Args:
        report: is called once with the holder's description if it has to wait.
    """
    reported = False
    while (file := acquire(path)) is None:
        if not reported:
            report(str(holder(path) or Holder()))
            reported = True
        time.sleep(POLL_SECONDS)
    with file:
        yield


def _open(path: Path, all_users: bool) -> IO[str]:
    """Open the file of a lock and create it if needed; other users' files may be read-only."""
    while True:
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o666))
            if all_users:
                path.chmod(0o666)  # whatever the umask
        try:
            return os.fdopen(os.open(path, os.O_RDWR | os.O_NOFOLLOW), "r+")
        except FileNotFoundError:
            continue  # it was deleted meanwhile
        except PermissionError:
            if not all_users:
                raise
            return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW))


def _is_held(error: OSError) -> bool:
    return error.errno in (errno.EWOULDBLOCK, errno.EACCES)


def _is_at(file: IO[str], path: Path) -> bool:
    """Return whether a path still leads to an open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
