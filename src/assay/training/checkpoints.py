"""Checkpoint files: written atomically, with their SHA-256 in their name."""

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO

from assay.runs import atomic_files

KEPT = 2
KEYS = {"finished", "batch", "history", "seconds", "measured", "environment"}
NAME = re.compile(r"(\d{12})-([0-9a-f]{16})\.checkpoint")
DAMAGED = ".damaged"


def write(folder: Path, batch: int, state: dict[str, Any]) -> Path:
    """Write a checkpoint and delete all but the newest two.

    Args:
        batch: number of the batch that comes next.
        state: what `torch.load` can read with `weights_only`.
    """
    name = f"{batch:012}-{{digest}}.checkpoint"
    path, _ = atomic_files.stream(
        folder / f"{batch:012}", lambda file: torch.save(state, file), name
    )
    for old in _newest_first(folder)[KEPT:]:
        old.unlink()
    return path


def remove_partial(folder: Path) -> None:
    """Delete files that a process was writing when it was killed."""
    for path in folder.glob(f"*{atomic_files.PART}"):
        path.unlink()


def newest(folder: Path) -> dict[str, Any] | None:
    """Return the newest intact state, or None; rename a damaged checkpoint out of the way."""
    for path in _newest_first(folder):
        try:
            return read(path)
        except (OSError, ValueError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            damaged = path.with_name(path.name + DAMAGED)
            path.replace(damaged)
            print(f"warning: {damaged}: not used, but the one before it: {error}", flush=True)
    return None


def read(path: Path) -> dict[str, Any]:
    """Return the state in a checkpoint.

    Raises:
        ValueError: the file is not what was written.
    """
    [(_, expected)] = NAME.findall(path.name)
    actual = atomic_files.sha256(path)[:16]
    if actual != expected:
        raise ValueError(f"the checkpoint is damaged: its SHA-256 begins with {actual}")
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not state.keys() >= KEYS:
        raise ValueError("it is not a checkpoint of a training")
    return state


def _newest_first(folder: Path) -> list[Path]:
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted((path for path in paths if NAME.fullmatch(path.name)), reverse=True)


class ResumeFolder(CheckpointIO):
    """Lets Lightning write to and read from a folder of such files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; the path's last part is the number of the next batch."""
        write(self.folder, int(Path(path).name), checkpoint)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read the newest checkpoint."""
        return newest(self.folder)

    def remove_checkpoint(self, path: Any) -> None:
        """Do nothing: `write` keeps the newest two."""
