"""Download files: verified by SHA-256, cached, and taken from the user's own folder if possible."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from assay.runs import atomic_files, locks
from assay.runs.errors import ExitCode, JobError

if TYPE_CHECKING:
    from requests import Response

DATA_FOLDER = "ASSAY_DATA"  # environment variable: a folder with files that need no download
MAX_ATTEMPTS = 20  # per URL; an attempt that receives nothing is the last one
TIMEOUTS_SECONDS = (15, 60)  # to connect, and between two chunks
CHUNK_BYTES = 2**16
PROGRESS_SECONDS = 5


def fetch(name: str, urls: Sequence[str], sha256: str, folder: str) -> Path:
    """Return the path of a file, and download it if necessary.

    The file may be `$ASSAY_DATA/<folder>/<name>`, or in the user's cache, where downloads are
    kept. An interrupted download resumes. Several processes may fetch one file at once.

    Args:
        name: name of the file.
        urls: addresses of the same file, tried in turn.
        sha256: of the file, 64 hexadecimal characters.
        folder: folder of the data set, below `$ASSAY_DATA` and below the cache.

    Raises:
        JobError: no URL serves this file, or the one in `$ASSAY_DATA` differs.
    """
    if path := local(name, sha256, folder):
        return path
    import platformdirs

    cached = platformdirs.user_cache_path("assay") / folder / name
    if not _is_intact(cached, sha256):
        cached.parent.mkdir(parents=True, exist_ok=True)
        with _partial_file(cached) as partial:
            if not _is_intact(cached, sha256):  # another process may have downloaded it meanwhile
                _download(partial, name, urls, sha256, folder)
                partial.replace(cached)
    return cached


def local(name: str, sha256: str, folder: str) -> Path | None:
    """Return the path of the user's own copy, `$ASSAY_DATA/<folder>/<name>`; None without one.

    Raises:
        JobError: its SHA-256 differs, or `$ASSAY_DATA` is not a folder.
    """
    path = local_path(name, folder)
    if path is None or not path.is_file():
        return None
    if (actual := atomic_files.sha256(path)) != sha256:
        raise JobError(
            f"{path} is damaged or another file: its SHA-256 is {actual}, expected {sha256}; "
            "replace it, or remove it to have it downloaded",
            ExitCode.DATA,
        )
    return path


def local_path(name: str, folder: str) -> Path | None:
    """Return the path for the user's own copy of a file; None if ASSAY_DATA is not set.

    Raises:
        JobError: `$ASSAY_DATA` is not a folder.
    """
    root = os.environ.get(DATA_FOLDER)
    if not root:
        return None
    if not Path(root).is_dir():
        what = f"the environment variable {DATA_FOLDER} is {root}, which is not a folder"
        raise JobError(f"{what}: correct or unset it", ExitCode.DATA)
    return Path(root, folder, name)


def _is_intact(path: Path, sha256: str) -> bool:
    return path.is_file() and atomic_files.sha256(path) == sha256


@contextmanager
def _partial_file(cached: Path) -> Iterator[Path]:
    """Wait until no other process downloads a file, and yield the path for an incomplete one."""
    with ExitStack() as stack:
        partial = cached.with_name(f"{cached.name}{atomic_files.PART}")
        lock = cached.with_name(f"{cached.name}.lock")
        try:
            stack.enter_context(locks.hold(lock, lambda holder: _print_wait(cached.name, holder)))
        except OSError:  # some cluster file systems have no locks: each process downloads its own
            unique = f"{cached.name}.{os.uname().nodename}.{os.getpid()}{atomic_files.PART}"
            partial = cached.with_name(unique)
            stack.callback(partial.unlink, missing_ok=True)
        yield partial


def _print_wait(name: str, holder: str) -> None:
    print(f"download: {name} is being downloaded by {holder}; waiting", flush=True)


def _download(partial: Path, name: str, urls: Sequence[str], sha256: str, folder: str) -> None:
    """Try the URLs in turn until `partial` has the right content."""
    failures = []
    for url in urls:
        try:
            if _has_downloaded(url, partial, sha256):
                return
            failures.append(f"{urlsplit(url).hostname} serves another file")
        except _network_errors() as error:
            failures.append(f"{urlsplit(url).hostname} {_reason(error)}")
        print(f"download: {name}: {failures[-1]}", flush=True)
    path = local_path(name, folder) or f"{folder}/{name} in a folder that {DATA_FOLDER} names"
    raise JobError(
        f"{name} could not be downloaded ({', '.join(failures)}): get the file with SHA-256 "
        f"{sha256} from {' or '.join(urls)} by other means and put it at {path} "
        f"({DATA_FOLDER} is an environment variable)",
        ExitCode.DATA,
    )


def _has_downloaded(url: str, partial: Path, sha256: str) -> bool:
    """Download from one URL; return whether the content is right."""
    resumed = partial.exists()
    _retry(url, partial)
    if _is_intact(partial, sha256):
        return True
    partial.unlink()
    return resumed and _has_downloaded(url, partial, sha256)  # it may have begun with another file


def _retry(url: str, partial: Path) -> None:
    """Download, and resume after a broken connection as long as something arrives."""
    for attempt in range(1, MAX_ATTEMPTS + 1):
        before = _size(partial)
        try:
            return _resume(url, partial)
        except _network_errors():
            if attempt == MAX_ATTEMPTS or _size(partial) <= before:
                raise


def _resume(url: str, partial: Path) -> None:
    """Download what `partial` lacks, or all of it if the server does not support ranges."""
    import requests

    start = _size(partial)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUTS_SECONDS) as response:
        if start and response.status_code == requests.codes.requested_range_not_satisfiable:
            return  # it is not shorter than the file
        response.raise_for_status()
        if response.status_code != requests.codes.partial_content:
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        _append(response, partial, start, total)
    if total is not None and _size(partial) < total:
        raise ConnectionError(f"received {_size(partial)} of {total} bytes")


def _append(response: "Response", partial: Path, start: int, total: int | None) -> None:
    name, host = partial.name.removesuffix(atomic_files.PART), urlsplit(response.url).hostname
    printed = 0.0
    with partial.open("ab") as file:
        file.truncate(start)
        for chunk in response.raw.stream(CHUNK_BYTES, decode_content=False):
            try:
                file.write(chunk)
            except OSError as error:
                error.filename = str(partial)  # for the message: it names the disk
                raise
            if time.monotonic() - printed > PROGRESS_SECONDS:
                printed = time.monotonic()
                of = f" of {total / 1e6:.1f}" if total else ""
                print(f"download: {name}: {file.tell() / 1e6:.1f}{of} MB from {host}", flush=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _network_errors() -> tuple[type[Exception], ...]:
    from requests import RequestException
    from urllib3.exceptions import HTTPError

    return RequestException, HTTPError, ConnectionError, TimeoutError


def _reason(error: Exception) -> str:
    import requests

    if isinstance(error, requests.HTTPError):
        return f"answers {error.response.status_code}"
    if isinstance(error, requests.exceptions.SSLError):
        return "has no certificate that is trusted here"
    if isinstance(error, requests.Timeout | TimeoutError):
        return "does not answer in time"
    if isinstance(error, requests.ConnectionError):
        return "cannot be reached"
    return "breaks off"
