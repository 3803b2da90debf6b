"""The record of a run, written last into its folder: a run without a record is not complete."""

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
LOCK = f"{RESUME}/lock"  # held by the process of the run
KEYS = {"stage", "name", "seed", "digest", "settings", "parents", "files"}
UNHASHED = {RECORD, FAILURE, LOG, "benchmark.tsv"}


class CorruptRecord(ValueError):
    """A record or a file of a run is damaged, or was edited after the run."""


def write(folder: Path, record: dict[str, Any]) -> None:
    """Write a run's record, the last step of a run, atomically.

    It lists the SHA-256 of each file of the run, and a checksum of the record itself.
    """
    names = (path.relative_to(folder).as_posix() for path in _files(folder))
    hashes = {name: atomic_files.sha256(folder / name) for name in names if name not in UNHASHED}
    record = {**record, "files": hashes}
    (folder / FAILURE).unlink(missing_ok=True)
    _write_json(folder / RECORD, record | {"checksum": _checksum(record)})


def clamp_mtimes(folders: Iterable[Path]) -> None:
    """Set mtimes of files of runs that lie in the future to now, after a clock was set back.

    Snakemake refuses a result that seems older than its input.
    """
    now = time.time()
    for path in (path for folder in folders for path in _files(folder)):
        if path.stat().st_mtime > now:
            with suppress(PermissionError):
                os.utime(path, (now, now))


def write_failure(folder: Path, failure: dict[str, Any]) -> None:
    """Write `failure.json`: the `reason` and exit `code` of a run that stopped."""
    _write_json(folder / FAILURE, failure)


def read(folder: Path) -> dict[str, Any]:
    """Return the record of a complete run.

    Raises:
        FileNotFoundError: the run is not complete.
        CorruptRecord: the record cannot be read, or was edited.
    """
    path, remedy = folder / RECORD, f"delete the folder {folder}"
    try:
        record = json.loads(path.read_bytes())
        checksum, missing = _checksum(record), sorted(KEYS - record.keys())
        if record["checksum"] != checksum:
            raise CorruptRecord(f"{path} was edited after its run: {remedy}")
    except (FileNotFoundError, CorruptRecord):
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptRecord(f"{path} is damaged ({error}): {remedy}") from error
    if missing:
        raise CorruptRecord(f"{path} lacks {missing[0]}: {remedy}")
    return record


@cache
def find(stage: str, name: str) -> dict[int | None, list[Path]]:
    """Return the record files of a stage and name by seed; cached, as there may be thousands."""
    paths: dict[int | None, list[Path]] = {}
    for path in sorted(Path("results", stage, name).glob(f"*/{RECORD}")):
        seed, _, run_hash = path.parent.name.removeprefix("seed").rpartition("-")
        paths.setdefault(int(seed) if seed.isdigit() and run_hash else None, []).append(path)
    return paths


def readable(paths: Iterable[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the folder and content of each `record.json` that can be read."""
    for path in paths:
        with suppress(FileNotFoundError, CorruptRecord):
            yield path.parent, read(path.parent)


def verified(folder: Path, record: dict[str, Any], name: str) -> Path:
    """Return the path of a file of a run, after comparing its hash with the record.

    Raises:
        CorruptRecord: it is missing, damaged or was edited.
    """
    path, expected = folder / name, record["files"].get(name)
    remedy = f"delete the folder {folder}"
    try:
        actual = atomic_files.sha256(path)
    except FileNotFoundError as error:
        raise CorruptRecord(f"{path} is missing: {remedy}") from error
    except OSError as error:
        raise CorruptRecord(f"{path} cannot be read ({error.strerror}): {remedy}") from error
    if actual != expected:
        what = f"its run wrote {expected[:16]}" if expected else "its run wrote no such file"
        raise CorruptRecord(
            f"{path} is damaged or was edited (SHA-256 {actual[:16]}, {what}): {remedy}"
        )
    return path


def read_failure(folder: Path) -> dict[str, Any] | None:
    """Return `failure.json` of a run, with `reason` and `code`; None if there is none."""
    try:
        failure = json.loads((folder / FAILURE).read_bytes())
        return {**failure, "reason": str(failure["reason"]), "code": int(failure["code"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def problem(folder: Path) -> str | None:
    """Return why a run has no readable record, for messages; None if it has one."""
    try:
        read(folder)
        return None
    except FileNotFoundError:
        return why_incomplete(folder)
    except CorruptRecord as error:
        return str(error)


def why_incomplete(folder: Path) -> str:
    """Return why a run has no record, for messages."""
    if failure := read_failure(folder):
        return f"failed: {failure['reason']}"
    if (folder / RESUME).exists():
        return "was killed, or is running now; snakemake resumes it"
    return "not run yet"


def _files(folder: Path) -> list[Path]:
    """Return the files of a run, except those that it keeps for resuming."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in paths if path.relative_to(folder).parts[0] != RESUME]


def _checksum(record: dict[str, Any]) -> str:
    content = {name: value for name, value in record.items() if name != "checksum"}
    return hashlib.sha256(identity.canonical(content).encode()).hexdigest()


def _write_json(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    atomic_files.write(path, text.encode())
