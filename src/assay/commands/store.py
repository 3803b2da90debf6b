"""Store: what results/ holds, and which of it no study refers to any more."""

import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from assay.commands import cli
from assay.runs import identity, locks, records
from assay.study import loading, plan
from assay.study.plan import Plan

STUDIES = "workflow/studies"
LEAF = re.compile(r"(seed\d+-)?[0-9a-f]{16}")


@dataclass(frozen=True)
class Held:
    """A run's folder.

    Attributes:
        studies: the names of those that refer to it.
        complete: whether it has a record.
        size_bytes: of each file, by its inode: adopted runs share their files.
        used: when a file of it was last written.
    """

    folder: Path
    studies: tuple[str, ...]
    complete: bool
    size_bytes: dict[int, int]
    used: datetime


def store(
    studies: list[Path] | None = None,
    remove: bool = False,
    yes: bool = False,
) -> None:
    """Show what results/ holds, and which runs no study refers to any more.

    A study is config.yaml, a file of workflow/studies/, and one that --studies names. Of a study
    whose file is somewhere else, the runs of its last snakemake count.

    Args:
        studies: further files, such as `[mine.yaml, other/study.yaml]`.
        remove: delete the runs that no study refers to, after a question.
        yes: do not ask.
    """
    held = look(*_studies(studies or []))
    print("\n".join(overview(held)))
    if remove:
        _remove([run for run in held if not run.studies], yes)


def look(plans: list[Plan], edited: dict[str, float]) -> list[Held]:
    """Every run's folder below results/, and who refers to it.

    Args:
        plans: of the studies that are known.
        edited: their names -> when their files were last edited. What a snakemake has run since
            then, by `--config` perhaps, counts as well.
    """
    wanted: dict[str, list[str]] = {}
    for one in plans:
        for run in one.runs:
            wanted.setdefault(run.folder, []).append(one.name)
    for link in Path(plan.LINKS).glob("*/**/*"):
        name = link.relative_to(plan.LINKS).parts[0]
        if link.is_symlink() and link.lstat().st_mtime > edited.get(name, 0):
            folder = Path("results", *link.readlink().parts[-3:])
            wanted.setdefault(str(folder), []).append(name)
    return [_held(folder, wanted.get(str(folder), [])) for folder in _folders()]


def overview(held: list[Held]) -> Iterator[str]:
    """Lines for a terminal."""
    if not held:
        yield "results/ holds no run yet."
        return
    yield f"{'':24}{'runs':>6}{'size':>12}"
    for stage in plan.STAGES:
        yield _line(f"results/{stage}", [run for run in held if run.folder.parts[1] == stage])
    yield _line("in all", held)
    for name in sorted({name for run in held for name in run.studies}):
        yield _line(f"study {name}", [run for run in held if name in run.studies])
    free = [run for run in held if not run.studies]
    yield _line("no study refers to", free)
    for run in free:
        state = "" if run.complete else ", not complete"
        yield f"  {run.folder}  {size([run])}, of {run.used:%Y-%m-%d %H:%M}{state}"


def size(held: list[Held]) -> str:
    """What runs take on the disk, such as `1.2 MB`."""
    count: float = sum({k: v for run in held for k, v in run.size_bytes.items()}.values())
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _studies(further: list[Path]) -> tuple[list[Plan], dict[str, float]]:
    """The plans of all studies, with a GPU and without, and when their files were edited."""
    edited: dict[str, float] = {}
    beside = [Path("config.yaml"), *sorted(Path(STUDIES).glob("*.yaml"))]
    plans = []
    for path in dict.fromkeys([*(path for path in beside if path.exists()), *further]):
        try:
            found = loading.read(path)
            plans += [Plan({**found, "device": device}) for device in ("cpu", "gpu")]
        except (loading.StudyError, identity.CodeError) as error:
            sys.exit(f"{error}\nNothing can be said of the runs before that is mended.")
        edited[found["study"]] = path.stat().st_mtime
    return plans, edited


def _folders() -> Iterator[Path]:
    for stage in plan.STAGES:
        for folder in sorted(Path("results", stage).glob("*/*")):
            if folder.is_dir() and not folder.is_symlink() and LEAF.fullmatch(folder.name):
                yield folder


def _held(folder: Path, studies: list[str]) -> Held:
    found = [path.stat() for path in folder.rglob("*") if path.is_file()]
    return Held(
        folder,
        tuple(dict.fromkeys(studies)),
        (folder / records.RECORD).exists(),
        {file.st_ino: file.st_size for file in found},
        datetime.fromtimestamp(max((file.st_mtime for file in found), default=0), UTC),
    )


def _line(name: str, held: list[Held]) -> str:
    return f"{name:24}{len(held):>6}{size(held):>12}"


def _remove(free: list[Held], yes: bool) -> None:
    if not free:
        return
    with cli.alone():
        if not cli.agreed(f"Delete these {len(free)} runs, {size(free)}?", yes):
            sys.exit("Nothing was deleted.")
        deleted = [run for run in free if _delete(run.folder)]
    print(f"Deleted {len(deleted)} runs, {size(deleted)}.")


def _delete(folder: Path) -> bool:
    """Delete a run unless a process is at work on it."""
    lock = folder / records.LOCK
    try:
        held = locks.take(lock)
        if held is None:
            print(f"{folder}: kept, for {locks.holder(lock)} is at work on it")
            return False
        with held:
            if (folder / records.RECORD).is_file():
                (folder / records.RECORD).unlink()  # what is left is no complete run
            shutil.rmtree(folder)
    except OSError as error:
        print(f"{folder}: cannot be deleted: {error.strerror}")
        return False
    if not any(folder.parent.iterdir()):
        folder.parent.rmdir()
    return True


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(store, as_positional=False)
