"""Makes a run again in a folder aside, to compare it with what stands in the results."""

import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from assay.devices import cpu
from assay.runs import identity, records, supervision
from assay.runs.artifacts import HISTORY
from assay.study.plan import Run

COMMON = {  # entries of a record that equal runs may differ in, or that are compared by themselves
    "stage", "name", "seed", "digest", "status", "settings", "parents", "code", "metrics", "device",
    "precision", "gpus", "jobs_per_gpu", "timing", "measured", "environment", "joules",
    "joules_missing_because", "peak_memory_bytes", "attempts", "started", "finished", "seconds",
    "files", "checksum", "adopted",
}  # fmt: skip
UNTIMED = "_seconds"  # the end of those columns of a history that equal runs may differ in


class Failed(Exception):
    """A stage that did not end; the text is its last word."""


@contextmanager
def made(run: Run, rounds: int | None = None) -> Iterator[Path]:
    """Make a run from scratch, below the system's folder for temporary files.

    Args:
        run: its parents have to be complete.
        rounds: only so many rounds of a training; None makes the whole run.

    Yields:
        The folder; it is deleted at the end of the block.

    Raises:
        Failed: the stage did not end.
    """
    with tempfile.TemporaryDirectory(prefix="assay-") as temporary:
        folder = Path(temporary, run.stage, run.name, Path(run.folder).name)
        command = [sys.executable, "-m", f"assay.{run.stage}", "--settings", run.settings_json]
        command += ["--output", str(folder)]
        for role, parent in run.parents.items():
            command += [f"--{role}", parent.folder]
        if run.seed is not None:
            command += ["--seed", str(run.seed)]
        if rounds is not None and is_training(run):
            command += ["--execution", identity.canonical({"intervals": rounds})]
        mark = {supervision.PARENT: supervision.mark(os.getpid())}
        environment = {**os.environ, **cpu.environment(run.settings.get("threads", 1)), **mark}
        environment["PYTHONPATH"] = str(identity.SOURCE)
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            words = records.failure(folder)
            last = done.stderr.strip().splitlines()[-1:] or ["it was killed"]
            raise Failed(words["reason"] if words else last[0])
        if not (folder / records.RECORD).exists():
            raise Failed("it ended and left no record")
        yield folder


def is_training(run: Run) -> bool:
    """Whether a run goes in rounds."""
    return run.stage in ("pretrain", "finetune")


def differences(before: Path, after: Path) -> Iterator[str]:
    """What two folders of a run differ in, times apart; nothing where the bytes are the same."""
    old, new = records.read(before), records.read(after)
    yield from other_names("files", old["files"], new["files"])
    if HISTORY in old["files"].keys() & new["files"].keys():
        yield from histories(before, after, rounds(before))
    for name in sorted((old["files"].keys() & new["files"].keys()) - {HISTORY}):
        if old["files"][name] != new["files"][name]:
            yield f"{name} has other bytes"
    yield from metrics(old["metrics"], new["metrics"])
    yield from entries(old, new)


def entries(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """Which entries of a stage's own differ: what chooses the weights, info of the data."""
    names = (old.keys() | new.keys()) - COMMON
    for name in sorted(names):
        if identity.canonical(old.get(name)) != identity.canonical(new.get(name)):
            yield f"{name} {old.get(name)} -> {new.get(name)}"


def histories(before: Path, after: Path, count: int) -> Iterator[str]:
    """Where two trainings part within the first `count` rounds: the first step that differs."""
    old, new = (_rows(folder)[:count] for folder in (before, after))
    for first, second in zip(old, new, strict=False):
        names = [name for name in first | second if not name.endswith(UNTIMED)]
        other = [name for name in names if first.get(name) != second.get(name)]
        if other:
            shown = ", ".join(
                f"{name} {first.get(name, 'absent')} -> {second.get(name, 'absent')}"
                for name in other
            )
            yield f"at step {first['step']}: {shown}"
            return
    if len(old) != len(new):
        yield f"it ends after {len(old)} rounds before and {len(new)} now"


def rounds(folder: Path) -> int:
    """How many rounds a training took."""
    return len(_rows(folder))


def metrics(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """Which metrics differ."""
    yield from other_names("metrics", old, new)
    for name in old.keys() & new.keys():
        if json.dumps(old[name]) != json.dumps(new[name]):
            yield f"{name} {old[name]} -> {new[name]}"


def other_names(kind: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """What one of two has and the other has not."""
    for name in sorted(old.keys() ^ new.keys()):
        yield f"{name} is among the {kind} only {'before' if name in old else 'now'}"


def _rows(folder: Path) -> list[dict[str, str]]:
    record = records.read(folder)
    with records.intact(folder, record, HISTORY).open(newline="") as file:
        return list(csv.DictReader(file))
