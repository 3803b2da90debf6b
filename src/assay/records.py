"""The record that a run leaves in its folder; while there is none, the run is not complete."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

RECORD, FAILURE, LOG = "record.json", "failure.json", "log.txt"


def write(folder: Path, record: dict[str, Any]) -> None:
    """Write a run's record, the last thing a run does: whole or not at all."""
    (folder / FAILURE).unlink(missing_ok=True)
    _write_json(folder / RECORD, record)


def write_failure(folder: Path, failure: dict[str, Any]) -> None:
    """Leave word of why a run stopped."""
    _write_json(folder / FAILURE, failure)


def read(folder: Path) -> dict[str, Any]:
    """A complete run's record.

    Raises:
        FileNotFoundError: the run is not complete.
    """
    return json.loads((folder / RECORD).read_text())


def trouble(folder: Path) -> str | None:
    """Why a run has no readable record, in words for a reader; None where it has one."""
    try:
        read(folder)
        return None
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        return f"its record cannot be read: {error}"
    try:
        return f"failed: {json.loads((folder / FAILURE).read_text())['reason']}"
    except (OSError, ValueError, KeyError):
        started = (folder / LOG).exists()
        return "stopped without a word, see its log.txt" if started else "not run yet"


def _write_json(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(file.name, 0o644)
    os.replace(file.name, path)
