"""Files from the internet: checked, kept, and first looked for in the user's own folder."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from assay.runs import atomic_files, locks
from assay.runs.errors import ExitCode, JobError

OWN = "ASSAY_DATA"  # environment variable: a folder with files that need no download
ATTEMPTS = 20  # per address, each of which must bring something
TIMEOUTS_SECONDS = (15, 60)  # to connect, and between two pieces
PIECE_BYTES = 2**16
TELL_SECONDS = 5


def fetch(name: str, urls: Sequence[str], sha256: str, folder: str) -> Path:
    """Find a file, or download it; a download that broke off goes on where it was.

    It is looked for as `$ASSAY_DATA/<folder>/<name>`, then in the user's cache, which keeps
    what was downloaded. Several processes may ask for one file at once.

    Args:
        name: of the file, here and in messages.
        urls: addresses that hold the same file, tried in turn.
        sha256: of the file, 64 hexadecimal characters.
        folder: of the data set, below `$ASSAY_DATA` and below the cache.

    Raises:
        JobError: no address gives this file, or the one in `$ASSAY_DATA` is another.
    """
    if own := local(name, sha256, folder):
        return own
    import pooch

    kept = Path(pooch.os_cache("assay")) / folder / name
    if not _holds(kept, sha256):
        kept.parent.mkdir(parents=True, exist_ok=True)
        with _alone(kept) as part:  # by now another process can have it; pooch looks again
            _download(kept, part, urls, sha256, folder)
    return kept


def local(name: str, sha256: str, folder: str) -> Path | None:
    """The user's own copy, `$ASSAY_DATA/<folder>/<name>`; None where there is none.

    Raises:
        JobError: it is another file, or `$ASSAY_DATA` is no folder.
    """
    path = own_path(name, folder)
    if path is None or not path.is_file():
        return None
    found = atomic_files.sha256(path)
    if found != sha256:
        raise JobError(
            f"{path} is damaged or another file: its SHA-256 is {found}, expected {sha256}; "
            "replace it, or remove it to have it downloaded",
            ExitCode.DATA,
        )
    return path


def own_path(name: str, folder: str) -> Path | None:
    """Where the user's own copy of a file would stand; None where ASSAY_DATA is not set.

    Raises:
        JobError: `$ASSAY_DATA` is no folder.
    """
    root = os.environ.get(OWN)
    if not root:
        return None
    if not Path(root).is_dir():
        what = f"the environment variable {OWN} names {root}, which is no folder: mend or unset it"
        raise JobError(what, ExitCode.DATA)
    return Path(root, folder, name)


def _holds(path: Path, sha256: str) -> bool:
    return path.is_file() and atomic_files.sha256(path) == sha256


@contextmanager
def _alone(kept: Path) -> Iterator[Path]:
    """Wait until no other process downloads a file; gives the path of what is not whole yet."""
    with ExitStack() as stack:
        part = kept.with_name(f"{kept.name}{atomic_files.PART}")
        lock = kept.with_name(f"{kept.name}.lock")
        try:
            stack.enter_context(locks.hold(lock, lambda who: _wait(kept, who)))
        except OSError:  # some file systems of clusters know no locks: then each for itself
            part = kept.with_name(
                f"{kept.name}.{os.uname().nodename}.{os.getpid()}{atomic_files.PART}"
            )
            stack.callback(part.unlink, missing_ok=True)
        yield part


def _wait(kept: Path, who: str) -> None:
    print(f"download: {kept.name} is being downloaded by {who}; waiting", flush=True)


def _download(kept: Path, part: Path, urls: Sequence[str], sha256: str, folder: str) -> None:
    """Try the addresses in turn."""
    import requests
    from urllib3.exceptions import HTTPError

    failures = []
    for url in urls:
        try:
            return _retrieve(kept, part, url, sha256)
        except (requests.RequestException, HTTPError, ConnectionError, TimeoutError) as error:
            failures.append(f"{urlsplit(url).hostname} {_reason(error)}")
        except ValueError:  # pooch's word for another checksum
            failures.append(f"{urlsplit(url).hostname} gives another file")
        print(f"download: {kept.name}: {failures[-1]}", flush=True)
    name = kept.name
    place = own_path(name, folder) or f"{folder}/{name} in a folder that {OWN} names"
    raise JobError(
        f"{name} could not be downloaded ({', '.join(failures)}): get the file with SHA-256 "
        f"{sha256} from {' or '.join(urls)} by other means and put it at {place} "
        f"({OWN} is an environment variable)",
        ExitCode.DATA,
    )


def _retrieve(kept: Path, part: Path, url: str, sha256: str) -> None:
    """Download from one address; the file is there in the end only if its SHA-256 is right."""
    import pooch

    pooch.get_logger().setLevel("WARNING")
    options = dict(fname=kept.name, path=kept.parent, downloader=_Resuming(part))
    resumed = part.exists()
    try:
        pooch.retrieve(url, f"sha256:{sha256}", **options)
    except ValueError:
        if not resumed:
            raise
        pooch.retrieve(url, f"sha256:{sha256}", **options)  # the part was of another file


class _Resuming:
    """A downloader for pooch that keeps what has come, and asks for the rest."""

    def __init__(self, part: Path) -> None:
        self.part = part

    def __call__(self, url: str, output: str, _: Any) -> None:
        import requests
        from urllib3.exceptions import HTTPError

        for attempt in range(1, ATTEMPTS + 1):
            before = self._size()
            try:
                self._go_on(url)
                break
            except (requests.RequestException, HTTPError, ConnectionError, TimeoutError):
                if attempt == ATTEMPTS or self._size() <= before:
                    raise
        self.part.replace(output)

    def _size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _go_on(self, url: str) -> None:
        import requests

        start = self._size()
        wanted = {"Range": f"bytes={start}-"} if start else {}
        headers = {"Accept-Encoding": "identity", **wanted}
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUTS_SECONDS) as answer:
            if start and answer.status_code == requests.codes.requested_range_not_satisfiable:
                self.part.unlink()  # as long as the file, or longer, and not it
                return self._go_on(url)
            answer.raise_for_status()
            if answer.status_code != requests.codes.partial_content:
                start = 0
            elif not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                raise requests.RequestException("another range than the one asked for")
            length = answer.headers.get("Content-Length")
            whole = start + int(length) if length else None
            with self.part.open("ab") as file:
                file.truncate(start)
                self._copy(answer.raw, file, whole, urlsplit(url).hostname)
            if whole is not None and self._size() < whole:
                raise ConnectionError(f"{self._size()} of {whole} bytes")

    def _copy(self, source: Any, file: IO[bytes], whole: int | None, host: str | None) -> None:
        name = self.part.name.removesuffix(atomic_files.PART)
        told = 0.0
        while piece := source.read(PIECE_BYTES, decode_content=False):
            try:
                file.write(piece)
            except OSError as error:
                error.filename = str(self.part)  # the message names its disk
                raise
            if time.monotonic() - told > TELL_SECONDS:
                told = time.monotonic()
                of = f" of {whole / 1e6:.1f}" if whole else ""
                print(f"download: {name}: {file.tell() / 1e6:.1f}{of} MB from {host}", flush=True)


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
