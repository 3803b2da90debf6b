"""Run a job again in a temporary folder, and compare the result with an earlier one."""

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
from assay.runs.artifacts import HISTORY, read_history
from assay.study.plan import Run

COMPARED_OR_FREE = {  # entries of a record that are compared separately, or may differ
    "stage", "name", "seed", "digest", "status", "settings", "parents", "code", "metrics", "device",
    "precision", "gpus", "jobs_per_gpu", "timing", "measured", "environment", "joules",
    "joules_missing_because", "peak_memory_bytes", "attempts", "started", "finished", "seconds",
    "files", "checksum", "adopted",
}  # fmt: skip
TIMES = "_seconds"  # how the columns of a history end that may differ


class ReplayError(Exception):
    """A replay that failed; the message is the last one of its stage."""


@contextmanager
def rerun(run: Run, execution: dict[str, Any]) -> Iterator[Path]:
    """Run a job from scratch in a temporary folder.

    Args:
        run: its parents must be complete.
        execution: the study's `execution`; with `intervals` a training stops after that number of
            validation intervals.

    Yields:
        The folder; it is deleted at the end of the block.

    Raises:
        ReplayError: the stage failed.
    """
    with tempfile.TemporaryDirectory(prefix="assay-") as temporary:
        folder = Path(temporary, run.stage, run.name, Path(run.folder).name)
        command = [sys.executable, "-m", f"assay.{run.stage}", "--settings", run.settings_json]
        command += ["--output", str(folder), "--execution", identity.canonical(execution)]
        for role, parent in run.parents.items():
            command += [f"--{role}", parent.folder]
        if run.seed is not None:
            command += ["--seed", str(run.seed)]
        done = subprocess.run(command, env=_environment(run), capture_output=True, text=True)
        if done.returncode:
            failure = records.read_failure(folder)
            last = done.stderr.strip().splitlines()[-1:] or ["it was killed"]
            raise ReplayError(failure["reason"] if failure else last[0])
        if not (folder / records.RECORD).exists():
            raise ReplayError("it exited without a record")
        yield folder


def _environment(run: Run) -> dict[str, str]:
    return {
        **os.environ,
        **cpu.environment(run.settings.get("threads", 1)),
        supervision.PARENT: supervision.mark(os.getpid()),
        "PYTHONPATH": str(identity.SOURCE),
    }


def is_training(run: Run) -> bool:
    """Return whether a run has validation intervals."""
    return run.stage in ("pretrain", "finetune")


def differences(before: Path, after: Path) -> Iterator[str]:
    """Describe how two folders of one run differ apart from times; nothing if bytes are equal."""
    old, new = records.read(before), records.read(after)
    yield from only_in_one("files", old["files"], new["files"])
    common = old["files"].keys() & new["files"].keys()
    if HISTORY in common:
        yield from history_differences(before, after)
    for name in sorted(common - {HISTORY}):
        if old["files"][name] != new["files"][name]:
            yield f"{name} has other bytes"
    yield from metric_differences(old["metrics"], new["metrics"])
    yield from entry_differences(old, new)


def entry_differences(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """Describe which entries of two records differ that only some stages write, such as `info`."""
    for name in sorted((old.keys() | new.keys()) - COMPARED_OR_FREE):
        if identity.canonical(old.get(name)) != identity.canonical(new.get(name)):
            yield f"{name} {old.get(name)} -> {new.get(name)}"


def history_differences(before: Path, after: Path, intervals: int | None = None) -> Iterator[str]:
    """Describe the first validation at which two trainings differ.

    Args:
        intervals: compare only the first ones; None compares all.
    """
    old, new = (history(folder)[:intervals] for folder in (before, after))
    for first, second in zip(old, new, strict=False):
        names = [name for name in first | second if not name.endswith(TIMES)]
        changed = [
            f"{name} {first.get(name, 'absent')} -> {second.get(name, 'absent')}"
            for name in names
            if first.get(name) != second.get(name)
        ]
        if changed:
            yield f"at step {first['step']}: {', '.join(changed)}"
            return
    if len(old) != len(new):
        yield f"it ends after {len(old)} validations before and {len(new)} now"


def metric_differences(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """Describe which metrics differ."""
    yield from only_in_one("metrics", old, new)
    for name in sorted(old.keys() & new.keys()):
        if json.dumps(old[name]) != json.dumps(new[name]):
            yield f"{name} {old[name]} -> {new[name]}"


def only_in_one(kind: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """Describe which names only one of two mappings has."""
    for name in sorted(old.keys() ^ new.keys()):
        yield f"{name} is among the {kind} only {'before' if name in old else 'now'}"


def history(folder: Path) -> list[dict[str, str]]:
    """Return the rows of a complete training's history, one per validation.

    Raises:
        CorruptRecord: the file is missing, damaged or edited.
    """
    return read_history(records.verified(folder, records.read(folder), HISTORY))
