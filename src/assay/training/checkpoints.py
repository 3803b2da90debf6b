"""Checkpoint files: whole or not there, their digest in their name, the newest two kept."""

import pickle
import re
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO

from assay.runs import atomic_files

KEPT = 2
KEYS = {"finished", "batch", "history", "seconds", "measured", "made_with"}
NAME = re.compile(r"(\d{12})-([0-9a-f]{16})\.checkpoint")
DAMAGED = ".damaged"


def write(folder: Path, batch: int, state: dict[str, Any]) -> Path:
    """Write a checkpoint and delete those that are too old.

    Args:
        batch: the number of the batch that comes next.
        state: what `torch.load` can read with `weights_only`.
    """
    name = f"{batch:012}-{{digest}}.checkpoint"
    path, _ = atomic_files.stream(
        folder / f"{batch:012}", lambda file: torch.save(state, file), name
    )
    for old in _found(folder)[KEPT:]:
        old.unlink()
    return path


def left(folder: Path) -> dict[str, Any] | None:
    """The newest state that a process has left whose place this one takes."""
    for path in folder.glob(f"*{atomic_files.PART}"):  # it was killed while writing
        path.unlink()
    return newest(folder)


def newest(folder: Path) -> dict[str, Any] | None:
    """The state in the newest checkpoint that is whole; None where there is none.

    A damaged one is set aside, and the one before it is used.
    """
    for path in _found(folder):
        try:
            return read(path)
        except (OSError, ValueError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            aside = path.with_name(path.name + DAMAGED)
            path.replace(aside)
            print(f"warning: {aside}: set aside, the one before it is used: {error}", flush=True)
    return None


def read(path: Path) -> dict[str, Any]:
    """The state in a checkpoint.

    Raises:
        ValueError: the file is not what was written.
    """
    [(_, digest)] = NAME.findall(path.name)
    found = atomic_files.sha256(path)[:16]
    if found != digest:
        raise ValueError(f"the checkpoint is damaged: its SHA-256 begins with {found}")
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not state.keys() >= KEYS:
        raise ValueError("it is not a checkpoint of a training")
    return state


def _found(folder: Path) -> list[Path]:
    paths = folder.iterdir() if folder.is_dir() else ()
    return sorted((path for path in paths if NAME.fullmatch(path.name)), reverse=True)


class Folder(CheckpointIO):
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
        """Nothing: `write` keeps the newest two."""
