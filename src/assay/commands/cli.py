"""What the commands for people have in common: a study, a folder to themselves, a question."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from assay.data import downloads
from assay.runs import identity, locks
from assay.study import loading
from assay.study.plan import Plan, Run

HINT = 4  # runs that a message names as examples


def read(path: Path) -> Plan:
    """The plan of a study's file, or an exit with what is wrong with it.

    A run that is made again looks for data where the study says.
    """
    try:
        plan = Plan(loading.read(path))
    except (loading.StudyError, identity.CodeError) as error:
        sys.exit(str(error))
    if folder := plan.execution.get("data_folder"):
        os.environ[downloads.OWN] = folder
    return plan


def chosen(plan: Plan, target: str | None) -> list[Run]:
    """The runs that a person means, all of them where nothing was said; or an exit."""
    if target is None:
        return plan.runs
    found = [plan.by_folder[str(Path(record).parent)] for record in plan.select(target)]
    if not found:
        titles = ", ".join(dict.fromkeys(run.title for run in plan.runs[:HINT]))
        sys.exit(f"{target}: is no run of {plan.name} as it stands now; there is {titles}, ...")
    return found


@contextmanager
def alone() -> Iterator[None]:
    """Hold the lock that a running snakemake holds, for the length of a block; or exit."""
    held = locks.take(locks.WORKFLOW)
    if held is None:
        sys.exit(
            f"A snakemake is running in this folder: {locks.holder(locks.WORKFLOW)}. "
            "Wait for it or end it."
        )
    with held:
        yield


def agreed(question: str, yes: bool) -> bool:
    """Whether a person says yes; where nobody can be asked, only `--yes true` does."""
    if yes:
        return True
    if not sys.stdin.isatty():
        print(f"{question} Nobody can be asked here: say --yes true.")
        return False
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
