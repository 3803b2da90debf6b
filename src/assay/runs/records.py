"""The record that a run leaves in its folder; while there is none, the run is not complete."""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from assay.runs import atomic_files, identity

RECORD, FAILURE, LOG, RESUME = "record.json", "failure.json", "log.txt", "resume"
LOCK = f"{RESUME}/lock"  # held by the process that is at work on a run
KEYS = {"stage", "name", "seed", "digest", "settings", "parents", "files"}
UNHASHED = {RECORD, FAILURE, LOG, "benchmark.tsv"}


class CorruptRecord(ValueError):
    """A record that is not as its run wrote it."""


def write(folder: Path, record: dict[str, Any]) -> None:
    """Write a run's record, the last thing a run does: whole or not at all.

    It lists the SHA-256 of each file that the run has left, and ends with a seal over itself.
    """
    names = (path.relative_to(folder).as_posix() for path in _files(folder))
    kept = [name for name in names if name not in UNHASHED]
    record = {**record, "files": {name: atomic_files.sha256(folder / name) for name in kept}}
    (folder / FAILURE).unlink(missing_ok=True)
    _write_json(folder / RECORD, record | {"checksum": _checksum(record)})


def redate(folders: Iterable[Path]) -> None:
    """Date the files of runs no later than now, where a clock was set back since they were made.

    Snakemake refuses a result that seems older than what it was made from.
    """
    now = time.time()
    for path in (path for folder in folders for path in _files(folder)):
        if path.stat().st_mtime > now:
            with suppress(PermissionError):
                os.utime(path, (now, now))


def write_failure(folder: Path, failure: dict[str, Any]) -> None:
    """Leave word of why a run stopped."""
    _write_json(folder / FAILURE, failure)


def read(folder: Path) -> dict[str, Any]:
    """A complete run's record.

    Raises:
        FileNotFoundError: the run is not complete.
        CorruptRecord: the record cannot be read, or was edited by hand.
    """
    try:
        record = json.loads((folder / RECORD).read_bytes())
        if record["checksum"] != _checksum(record):
            raise CorruptRecord(
                f"{folder / RECORD} was edited after its run: delete the folder {folder}"
            )
        if missing := sorted(KEYS - record.keys()):
            raise CorruptRecord(f"{folder / RECORD} lacks {missing[0]}: delete the folder {folder}")
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, CorruptRecord):
            raise
        raise CorruptRecord(
            f"{folder / RECORD} is damaged ({error}): delete the folder {folder}"
        ) from error
    return record


@cache
def made(stage: str, name: str) -> dict[int | None, list[Path]]:
    """The record files of a stage and name by seed, looked up once: there may be thousands."""
    found: dict[int | None, list[Path]] = {}
    for path in sorted(Path("results", stage, name).glob(f"*/{RECORD}")):
        seed, _, digest = path.parent.name.removeprefix("seed").rpartition("-")
        found.setdefault(int(seed) if seed.isdigit() and digest else None, []).append(path)
    return found


def readable(paths: Iterable[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folders and records of some `record.json`, without those that cannot be read."""
    for path in paths:
        try:
            yield path.parent, read(path.parent)
        except (FileNotFoundError, CorruptRecord):
            continue


def intact(folder: Path, record: dict[str, Any], name: str) -> Path:
    """A file of a run, which is as the run wrote it.

    Raises:
        CorruptRecord: it is missing, damaged or was edited.
    """
    path, wanted = folder / name, record["files"].get(name)
    try:
        found = atomic_files.sha256(path)
    except FileNotFoundError as error:
        raise CorruptRecord(f"{path} is missing: delete the folder {folder}") from error
    except OSError as error:
        what = f"{path} cannot be read ({error.strerror}): delete the folder {folder}"
        raise CorruptRecord(what) from error
    if found != wanted:
        what = f"its run wrote {wanted[:16]}" if wanted else "its run wrote no such file"
        raise CorruptRecord(
            f"{path} is damaged or was edited (SHA-256 {found[:16]}, {what}): delete the folder "
            f"{folder}"
        )
    return path


def failure(folder: Path) -> dict[str, Any] | None:
    """Why a run stopped, if it left word: `reason` and `code`."""
    try:
        found = json.loads((folder / FAILURE).read_bytes())
        return {"reason": str(found["reason"]), "code": int(found["code"]), **found}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def trouble(folder: Path) -> str | None:
    """Why a run has no readable record, in words for a reader; None where it has one."""
    try:
        read(folder)
        return None
    except FileNotFoundError:
        return why_incomplete(folder)
    except CorruptRecord as error:
        return str(error)


def why_incomplete(folder: Path) -> str:
    """Why a run has no record, in words for a reader."""
    if found := failure(folder):
        return f"failed: {found['reason']}"
    if (folder / RESUME).exists():
        return "was killed, or runs at this moment; snakemake goes on where it was"
    return "not run yet"


def _files(folder: Path) -> list[Path]:
    """What a run has left, without what it keeps for the case of being killed."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in found if path.relative_to(folder).parts[0] != RESUME]


def _checksum(record: dict[str, Any]) -> str:
    content = {name: value for name, value in record.items() if name != "checksum"}
    return hashlib.sha256(identity.canonical(content).encode()).hexdigest()


def _write_json(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    atomic_files.write(path, text.encode())
