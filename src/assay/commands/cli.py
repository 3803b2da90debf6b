"""What all commands share: reading a study, selecting runs, locking, asking and answering."""

import difflib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.runs import identity, locks
from assay.study import loading
from assay.study.plan import Plan, Run
from assay.study.schema import Study

STUDIES = Path("workflow", "studies")


@dataclass(frozen=True)
class Answer:
    """The result of a command.

    Attributes:
        lines: text for people.
        data: the same as JSON-compatible values, for `--json`.
        code: the exit code; 1 if a check failed.
    """

    lines: list[str]
    data: Any
    code: int = 0


class CommandError(ValueError):
    """A command that cannot run; the message says why and how to fix it."""


def read_study(path: Path) -> Study:
    """Read and complete a study.

    Raises:
        CommandError: the study cannot run; the message lists all its errors.
    """
    if not path.exists():
        raise CommandError(f"{path}: no such file; name the study's file with --study")
    try:
        return loading.read(path)
    except (loading.StudyError, identity.CodeError) as error:
        raise CommandError(str(error)) from error


def read(path: Path) -> Plan:
    """Return the plan of a study's file.

    Raises:
        CommandError: the study cannot run; the message lists all its errors.
    """
    study = read_study(path)
    try:
        return Plan(study)
    except identity.CodeError as error:
        raise CommandError(str(error)) from error


def study_files() -> list[Path]:
    """Return config.yaml and the files of workflow/studies/, as far as they exist."""
    files = [Path("config.yaml"), *sorted(STUDIES.glob("*.yaml"))]
    return [path for path in files if path.is_file()]


def select(plan: Plan, target: str | None) -> list[Run]:
    """Return the runs that a stage, an experiment or a path names; all runs for None.

    Raises:
        CommandError: it names no run; the message suggests a name.
    """
    if target is None:
        return plan.runs
    runs = [plan.by_folder[str(Path(record).parent)] for record in plan.select(target)]
    if not runs:
        raise CommandError(unknown(plan, target))
    return runs


def unknown(plan: Plan, target: str) -> str:
    """Return the message for a target that names no run of a plan, with a suggestion."""
    names = (
        name
        for run in plan.runs
        for name in (run.stage, run.name, f"{run.stage}/{run.name}", run.title, run.folder)
    )
    return f"{target}: no such run in study {plan.name}{suggestion(target, names)}"


def suggestion(name: str, options: Iterable[str]) -> str:
    """Return `; did you mean ...?`, or the first options if none resembles a name."""
    options = list(dict.fromkeys(options))
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; try {', '.join(options[:4])}" if options else ""


def describe(run: Run) -> dict[str, Any]:
    """Return what identifies a run, for `--json`."""
    named = {name: getattr(run, name) for name in ("stage", "name", "seed", "folder")}
    return {"run": run.title, **named, "hash": run.digest}


def progress(line: str) -> None:
    """Print a line that is not part of the answer."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def exclusive() -> Iterator[None]:
    """Hold the lock that a running snakemake holds, for the length of a block.

    Raises:
        CommandError: a snakemake is running in this folder.
    """
    lock = locks.acquire(locks.WORKFLOW)
    if lock is None:
        raise CommandError(
            f"A snakemake is running in this folder: {locks.holder(locks.WORKFLOW)}. "
            "Wait for it to end, or stop it."
        )
    with lock:
        yield


def confirm(question: str) -> None:
    """Ask a question on the terminal.

    Raises:
        CommandError: the answer is not yes, or there is no terminal.
    """
    if not sys.stdin.isatty():
        raise CommandError(f"{question} There is no terminal to ask on: repeat with --yes.")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandError("Nothing was deleted.")
