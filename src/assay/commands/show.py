"""`assay show`: the completed study, or its runs with their hashes."""

from pathlib import Path

import yaml

from assay.commands import cli
from assay.commands.cli import Answer

FIRST = ("schema", "study", "question", "seeds")


def show(study: Path, runs: bool = False) -> Answer:
    """Show a study with all defaults filled in.

    Args:
        study: the study's file.
        runs: show the study's runs with their hashes instead.
    """
    if runs:
        planned = [
            {**cli.describe(run), "complete": Path(run.record).exists()}
            for run in cli.read(study).runs
        ]
        width = max(len(run["run"]) for run in planned)
        state = {True: "complete", False: "incomplete"}
        lines = [f"{r['run']:{width}}  {r['hash']}  {state[r['complete']]}" for r in planned]
        return Answer(lines, planned)
    completed = cli.read_study(study).to_dict()
    completed = {key: completed[key] for key in FIRST if key in completed} | completed
    text = yaml.safe_dump(completed, sort_keys=False, allow_unicode=True)
    return Answer(text.splitlines(), completed)
