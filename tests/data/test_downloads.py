"""Downloads from a local server that breaks connections, serves other content or is down."""

import errno
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.checkout import PROJECT

from assay.data import downloads
from assay.runs import locks
from assay.runs.errors import ExitCode, JobError

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NOWHERE = "http://127.0.0.1:1/data.bin"


class Server(ThreadingHTTPServer):
    """Serves one file, with the failures that a test chooses.

    Attributes:
        cuts: numbers of bytes after which the next responses end; later ones are complete.
        ranges: whether it supports ranges.
        released: a response waits for this event before its last byte.
        requested: set by the first request.
        asked: the Range header of each request, or None.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.content, self.cuts, self.ranges = CONTENT, [], True
        self.released, self.requested = threading.Event(), threading.Event()
        self.released.set()
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/data.bin"


class Answer(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        content, wanted = self.server.content, self.headers.get("Range")
        self.server.asked.append(wanted)
        self.server.requested.set()
        start = int(wanted[6:-1]) if wanted and self.server.ranges else 0
        if start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts else len(content)
        self.wfile.write(content[start : start + cut][:-1])
        self.wfile.flush()
        self.server.released.wait()
        self.wfile.write(content[start : start + cut][-1:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use an empty cache and no folder of data."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv(downloads.DATA_FOLDER, raising=False)
    return tmp_path / "cache"


def fetch(*urls: str, sha256: str = SHA256) -> Path:
    return downloads.fetch("data.bin", urls, sha256, "things")


def refused(*urls: str, sha256: str = SHA256) -> str:
    """Return the message with which a download fails: one line, for bad data."""
    with pytest.raises(JobError) as caught:
        fetch(*urls, sha256=sha256)
    assert caught.value.code == ExitCode.DATA
    assert "\n" not in str(caught.value)
    return str(caught.value)


def kept(cache: Path) -> list[str]:
    """Return the files of the cache, except locks."""
    return sorted(p.name for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock")


def test_a_file_is_downloaded_once_and_kept(server: Server, cache: Path) -> None:
    path = fetch(server.url)
    assert path.read_bytes() == CONTENT
    assert fetch(server.url) == path
    assert server.asked == [None]
    assert kept(cache) == ["data.bin"]


def test_a_broken_download_resumes(server: Server) -> None:
    server.cuts = [300_000, 1]
    assert fetch(server.url).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=300001-"]


@settings(max_examples=15, deadline=None, suppress_health_check=[*HealthCheck])
@given(cuts=st.lists(st.integers(1, 200_000), max_size=8), ranges=st.booleans())
def test_the_content_is_right_wherever_connections_break(
    server: Server, cuts: list[int], ranges: bool
) -> None:
    server.cuts, server.ranges = sorted(cuts), ranges
    path = fetch(server.url, server.url, server.url, server.url, server.url, server.url)
    assert path.read_bytes() == CONTENT
    path.unlink()


def test_a_killed_download_resumes(server: Server, cache: Path) -> None:
    server.released.clear()
    process = in_another_process(server)
    while not any(part.stat().st_size for part in cache.rglob("*.part")):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    server.released.set()
    assert fetch(server.url).read_bytes() == CONTENT
    assert server.asked[1] is not None


def test_a_server_without_ranges_sends_the_file_from_the_start(server: Server) -> None:
    server.ranges, server.cuts = False, [300_000, 400_000]
    assert fetch(server.url).read_bytes() == CONTENT
    assert server.asked[1:] == ["bytes=300000-", "bytes=400000-"]


def test_a_file_that_always_ends_early_is_refused(server: Server, cache: Path) -> None:
    server.ranges, server.cuts = False, [500_000] * 50
    assert "breaks off" in refused(server.url)
    assert kept(cache) == ["data.bin.part"]


def test_another_file_is_refused_and_deleted(server: Server, cache: Path) -> None:
    assert "serves another file" in refused(server.url, sha256="0" * 64)
    assert kept(cache) == []


def test_the_next_url_is_tried(server: Server) -> None:
    with Server() as other:
        other.content = b"<html>moved</html>"
        threading.Thread(target=other.serve_forever, args=[0.01], daemon=True).start()
        assert fetch(NOWHERE, other.url, server.url).read_bytes() == CONTENT
        other.shutdown()
    assert server.asked == [None]


@pytest.mark.parametrize("left", [b"of another file", CONTENT[:-1] + b"?", CONTENT + b"more"])
def test_a_partial_download_of_another_file_is_replaced(
    server: Server, cache: Path, left: bytes
) -> None:
    path = fetch(server.url)
    path.with_name("data.bin.part").write_bytes(left)
    path.unlink()
    assert fetch(server.url).read_bytes() == CONTENT
    assert kept(cache) == ["data.bin"]


def test_a_damaged_file_in_the_cache_is_downloaded_again(server: Server) -> None:
    fetch(server.url).write_bytes(CONTENT[:-1])
    assert fetch(server.url).read_bytes() == CONTENT


def test_without_internet_the_message_says_which_file_to_put_where(tmp_path: Path) -> None:
    text = refused(NOWHERE, "http://localhost:1/data.bin")
    for word in ("data.bin", SHA256, NOWHERE, "localhost", "things/data.bin"):
        assert word in text
    assert downloads.DATA_FOLDER in text


def test_the_message_has_the_path_in_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(downloads.DATA_FOLDER, str(tmp_path))
    assert str(tmp_path / "things" / "data.bin") in refused(NOWHERE)


def test_a_file_in_the_data_folder_needs_no_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "things" / "data.bin"
    own.parent.mkdir()
    own.write_bytes(CONTENT)
    monkeypatch.setenv(downloads.DATA_FOLDER, str(tmp_path))
    assert fetch(NOWHERE) == own


def test_a_damaged_file_in_the_data_folder_is_reported(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "things" / "data.bin"
    own.parent.mkdir()
    own.write_bytes(b"damaged")
    monkeypatch.setenv(downloads.DATA_FOLDER, str(tmp_path))
    text = refused(server.url)
    assert str(own) in text and SHA256 in text
    assert server.asked == []


def test_a_missing_data_folder_is_reported(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(downloads.DATA_FOLDER, str(tmp_path / "mistyped"))
    assert "mistyped" in refused(server.url)


def in_another_process(server: Server) -> subprocess.Popen:
    arguments = ("data.bin", [server.url], SHA256, "things")
    code = f"from assay.data import downloads; downloads.fetch(*{arguments})"
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(PROJECT / "src")},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_several_processes_download_a_file_once(server: Server) -> None:
    server.released.clear()
    first = in_another_process(server)
    server.requested.wait()
    others = [in_another_process(server), in_another_process(server)]
    for process in others:
        assert "is being downloaded by process" in process.stdout.readline()
    server.released.set()
    assert [process.wait() for process in (first, *others)] == [0, 0, 0]
    assert server.asked == [None]
    assert fetch(NOWHERE).read_bytes() == CONTENT


def test_a_file_system_without_locks_works(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locks, "acquire", no_locks)
    server.cuts = [1000]
    assert fetch(server.url).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000-"]
    assert kept(cache) == ["data.bin"]
