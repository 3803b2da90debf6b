"""Locks name their holder, and end with it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from support.checkout import PROJECT

from assay.runs import locks

HOLD = """
import sys
from pathlib import Path
from assay.runs import locks
lock = locks.acquire(Path(sys.argv[1]), shared=sys.argv[2] == "shared")
print(lock is not None, flush=True)
sys.stdin.read()
"""


def hold(path: Path, kind: str = "exclusive") -> subprocess.Popen:
    """Start a process that tries to take a lock, and prints whether it has it."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), kind], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(PROJECT / "src")},
    )  # fmt: skip


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    assert locks.holder(path) is None
    process = hold(path)
    assert process.stdout.readline() == "True\n"
    assert locks.acquire(path) is None
    assert locks.holder(path) == locks.Holder(process.pid, socket.gethostname())
    assert str(locks.holder(path)) == f"process {process.pid} on {socket.gethostname()}"
    process.kill()
    process.communicate()
    assert locks.holder(path) is None
    with locks.acquire(path):
        assert locks.holder(path).pid == os.getpid()


def test_shared_locks_exclude_only_exclusive_locks(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locks.acquire(path, shared=True):
        process = hold(path, "shared")
        assert process.stdout.readline() == "True\n"
        assert locks.acquire(path) is None
        process.communicate("")
    assert locks.acquire(path)


def test_an_unreadable_holder_is_another_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locks.acquire(path) as file:
        file.write("not JSON")
        file.flush()
        assert str(locks.holder(path)) == "another process"


def test_a_lock_whose_file_was_deleted_does_not_block_others(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locks.acquire(path):
        path.unlink()
        assert locks.acquire(path)


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    (tmp_path / "lock").symlink_to("target")
    with pytest.raises(OSError):
        locks.acquire(tmp_path / "lock", all_users=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write every file")
def test_a_file_of_another_user_can_be_locked(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch(0o444)
    with locks.acquire(path, all_users=True):
        assert locks.acquire(path) is None
