"""`assay store`: show what results/ contains, and delete runs that no study uses any more."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from assay.commands import cli
from assay.commands.cli import Answer
from assay.runs import identity, locks, records
from assay.runs.units import size
from assay.study import plan
from assay.study.plan import Plan

LEAF = re.compile(r"(seed\d+-)?[0-9a-f]{16}")


@dataclass(frozen=True)
class StoredRun:
    """A run's folder below results/.

    Attributes:
        studies: the names of the studies that use it.
        complete: whether it has a record.
        bytes_by_inode: the sizes of its files; adopted runs share files.
        written: when one of its files was last written.
    """

    folder: Path
    studies: tuple[str, ...]
    complete: bool
    bytes_by_inode: dict[int, int]
    written: datetime


def store(study: list[Path], remove: bool = False, yes: bool = False) -> Answer:
    """Show what results/ contains, and which runs no study uses any more.

    The studies are config.yaml, the files of workflow/studies/ and those in `study`. Of a study
    whose file is somewhere else, the runs of its last snakemake count as used.

    Args:
        study: files of further studies.
        remove: delete the runs that no study uses, after a question.
        yes: do not ask.
    """
    stored = inventory(*_studies(study))
    unused = [run for run in stored if not run.studies]
    lines = list(overview(stored))
    deleted: list[StoredRun] = []
    if remove and unused:
        with cli.exclusive():
            if not yes:
                cli.progress("\n".join(lines))
                lines = []
                cli.confirm(f"Delete these {len(unused)} runs, {_size(unused)}?")
            deleted = [run for run in unused if _delete(run.folder)]
        lines.append(f"Deleted {len(deleted)} runs, {_size(deleted)}.")
    folders = {run.folder for run in deleted}
    data = [{**_describe(run), "deleted": run.folder in folders} for run in stored]
    return Answer(lines, {"runs": data})


def inventory(plans: list[Plan], edited: dict[str, float]) -> list[StoredRun]:
    """Return every run below results/, with the studies that use it.

    Args:
        plans: of the known studies.
        edited: name of a study -> when its file was last edited. What snakemake has run since
            then, perhaps with `--config`, counts as used as well.
    """
    users: dict[str, list[str]] = {}
    for one in plans:
        for run in one.runs:
            users.setdefault(run.folder, []).append(one.name)
    for link in Path(plan.LINKS).glob("*/**/*"):
        name = link.relative_to(plan.LINKS).parts[0]
        if link.is_symlink() and link.lstat().st_mtime > edited.get(name, 0):
            folder = Path("results", *link.readlink().parts[-3:])
            users.setdefault(str(folder), []).append(name)
    return [_stored(folder, users.get(str(folder), [])) for folder in _folders()]


def overview(stored: list[StoredRun]) -> Iterator[str]:
    """Yield lines for a terminal: runs and bytes per stage and study, then each unused run."""
    if not stored:
        yield "results/ contains no run yet."
        return
    yield f"{'':24}{'runs':>6}{'size':>12}"
    for stage in plan.STAGES:
        yield _line(f"results/{stage}", [run for run in stored if run.folder.parts[1] == stage])
    yield _line("total", stored)
    for name in sorted({name for run in stored for name in run.studies}):
        yield _line(f"study {name}", [run for run in stored if name in run.studies])
    unused = [run for run in stored if not run.studies]
    yield _line("unused", unused)
    for run in unused:
        state = "" if run.complete else ", incomplete"
        yield f"  {run.folder}  {_size([run])}, last written {run.written:%Y-%m-%d %H:%M}{state}"


def _describe(run: StoredRun) -> dict[str, Any]:
    return {
        "folder": str(run.folder),
        "studies": run.studies,
        "complete": run.complete,
        "bytes": sum(run.bytes_by_inode.values()),
        "written": run.written.isoformat(timespec="seconds"),
    }


def _size(runs: list[StoredRun]) -> str:
    return size(sum({k: v for run in runs for k, v in run.bytes_by_inode.items()}.values()))


def _studies(further: list[Path]) -> tuple[list[Plan], dict[str, float]]:
    """Return the plans of all studies, for CPU and GPU, and when their files were edited."""
    edited: dict[str, float] = {}
    plans = []
    for path in dict.fromkeys([*cli.study_files(), *further]):
        try:
            study = cli.read_study(path)
            plans += [Plan(replace(study, device=device)) for device in ("cpu", "gpu")]
        except (cli.CommandError, identity.CodeError) as error:
            message = f"{error}\nFix this study first: which runs it uses is unknown."
            raise cli.CommandError(message) from error
        edited[study.study] = path.stat().st_mtime
    return plans, edited


def _folders() -> Iterator[Path]:
    for stage in plan.STAGES:
        for folder in sorted(Path("results", stage).glob("*/*")):
            if folder.is_dir() and not folder.is_symlink() and LEAF.fullmatch(folder.name):
                yield folder


def _stored(folder: Path, studies: list[str]) -> StoredRun:
    found = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return StoredRun(
        folder,
        tuple(dict.fromkeys(studies)),
        (folder / records.RECORD).exists(),
        {file.st_ino: file.st_size for file in found},
        datetime.fromtimestamp(max((file.st_mtime for file in found), default=0), UTC),
    )


def _line(name: str, runs: list[StoredRun]) -> str:
    return f"{name:24}{len(runs):>6}{_size(runs):>12}"


def _delete(folder: Path) -> bool:
    """Delete a run unless a process is working on it."""
    lock = folder / records.LOCK
    try:
        held = locks.acquire(lock)
        if held is None:
            cli.progress(f"{folder}: kept, because {locks.holder(lock)} is working on it")
            return False
        with held:
            (folder / records.RECORD).unlink(missing_ok=True)  # the rest is no complete run
            shutil.rmtree(folder)
    except OSError as error:
        cli.progress(f"{folder}: cannot be deleted: {error.strerror}")
        return False
    if not any(folder.parent.iterdir()):
        folder.parent.rmdir()
    return True
