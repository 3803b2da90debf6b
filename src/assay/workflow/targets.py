"""Short names for targets, and which runs a command line asks for."""

import os
from collections.abc import Iterable
from pathlib import Path

from assay.commands import cli
from assay.study.plan import STAGES, Plan, Run
from assay.workflow.command_line import CommandLine

RULES = (*STAGES, "report", "all")


def named(plan: Plan, command: CommandLine) -> dict[str, list[str]]:
    """Return the records of the runs that each typed word names, for a rule of that name.

    Such words are an experiment, a pretraining, or a path such as `finetune/scratch/seed0`. Names
    of rules and of files are left to Snakemake.

    Raises:
        SystemExit: a word names nothing, and a suggestion; or a stage is given as a target.
    """
    if stages := [word for word in command.targets if word in STAGES]:
        raise SystemExit(f"{stages[0]} has a job per run: type `snakemake --until {stages[0]}`")
    words = {word for word in (*command.targets, *command.until) if word not in RULES}
    records = {word: plan.select(word) for word in words}
    for word, found in records.items():
        if not (found or _is_file(plan, word)):
            raise SystemExit(_unknown(plan, word))
    return {word: found for word, found in records.items() if found not in ([], [word])}


def _is_file(plan: Plan, word: str) -> bool:
    """Return whether a path exists, or is in a folder that a run or the report writes."""
    path = Path(os.path.relpath(word))
    folders = {str(parent) for parent in path.parents}
    return path.exists() or not folders.isdisjoint({plan.folder, *plan.by_folder})


def _unknown(plan: Plan, word: str) -> str:
    titles = (
        name for run in plan.runs for name in (run.name, f"{run.stage}/{run.name}", run.title)
    )
    return f"{word} is not a target of this study{cli.suggestion(word, [*titles, *RULES])}"


def requested(plan: Plan, command: CommandLine) -> list[Run]:
    """Return the runs that a command line asks for, with all that they depend on; parents first."""
    wanted = _closure(plan, [word for word in command.targets if word not in ("all", "report")])
    if not wanted or {"all", "report"} & set(command.targets):
        wanted = set(plan.by_folder)
    if command.until:
        wanted &= _closure(plan, command.until)
    return [run for run in plan.runs if run.folder in wanted]


def _closure(plan: Plan, words: Iterable[str]) -> set[str]:
    """Return the folders of the runs that words name, and of all their ancestors."""
    found: set[str] = set()
    for word in words:
        inside = {str(parent) for parent in Path(os.path.relpath(word)).parents}
        if plan.folder in inside:
            return set(plan.by_folder)
        found |= {str(Path(record).parent) for record in plan.select(word)}
        found |= inside & plan.by_folder.keys()
    for run in reversed(plan.runs):
        if run.folder in found:
            found |= {parent.folder for parent in run.parents.values()}
    return found
