"""One writer at a time: locks that end with the process that holds them."""

import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

PATIENCE_SECONDS = 0.1
WORKFLOW = Path(".snakemake", "assay.lock")  # held while a snakemake runs in this folder


def take(path: Path) -> IO[str] | None:
    """Take a lock, noting in its file who holds it; None where another process has it.

    The lock is held until the returned file is closed or the process ends, however it ends.

    Raises:
        OSError: the file cannot be written, or its file system knows no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return None
            raise
        if is_at(file, path):
            break
        file.close()  # it was deleted by its last holder: lock the file that stands there now
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file


def holder(path: Path) -> str | None:
    """Who holds a lock; None where nobody does."""
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise
        return path.read_text().strip() or "another process"


@contextmanager
def hold(path: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Hold a lock for the length of a block, and wait for it while another process has it.

    Args:
        tell: is called once with who has it, if one has to wait.
    """
    told = False
    while (file := take(path)) is None:
        if not told:
            tell(holder(path) or "another process")
            told = True
        time.sleep(PATIENCE_SECONDS)
    with file:
        yield


def is_at(file: IO[str], path: Path) -> bool:
    """Whether an open file still is the one that stands at a path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
