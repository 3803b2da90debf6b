"""From a command line to the plan of its study, and which of its runs Snakemake will start."""

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from snakemake.common.configfile import load_configfile
from snakemake.utils import update_config

from assay.commands import explain, reasons
from assay.runs import identity, records
from assay.study import loading
from assay.study.plan import STAGES, Plan, Run
from assay.workflow import targets
from assay.workflow.command_line import CommandLine


def study_files(given: Sequence[str], project: str) -> list[str]:
    """Return the files of `--configfile`, or config.yaml of this folder or else of the project."""
    if given:
        return [os.path.relpath(path) for path in given]
    return [
        "config.yaml"
        if Path("config.yaml").exists()
        else os.path.relpath(Path(project, "config.yaml"))
    ]


def read(files: Sequence[str], config: dict[str, Any]) -> Plan:
    """Read a study and plan its runs.

    Args:
        files: each one after the first changes values of those before.
        config: the values of `--config`, which change those of the files.

    Raises:
        SystemExit: the study cannot run; the message lists all its errors.
    """
    changes: dict[str, Any] = {}
    for file in files[1:]:
        update_config(changes, load_configfile(file))
    update_config(changes, config)
    try:
        return Plan(loading.read(Path(files[0]), changes))
    except (loading.StudyError, identity.CodeError) as error:
        raise SystemExit(str(error)) from error


def due(plan: Plan, command: CommandLine) -> dict[str, str]:
    """Return the folders of the runs that a command line asks for and that are not complete."""
    pending = reasons.due(plan)
    wanted = targets.requested(plan, command)
    return {run.folder: pending[run.folder] for run in wanted if run.folder in pending}


def table(plan: Plan, due: Mapping[str, str], has_report: bool, cores: int) -> list[str]:
    """Return lines that say why each run is due, and how long all take.

    Args:
        due: folders of runs -> what Snakemake says about them, or "".
        has_report: the report is due as well.
    """
    page = reasons.report_reason(plan, due) or "Snakemake runs it again" if has_report else None
    return explain.table(reasons.reasons(plan, due), cores, page)


def counts(plan: Plan, folders: Iterable[str]) -> dict[str, int]:
    """Return the number of runs of each stage."""
    found = dict.fromkeys(STAGES, 0)
    for folder in folders:
        found[plan.by_folder[folder].stage] += 1
    return {stage: count for stage, count in found.items() if count}


def arguments(run: Run, execution: str) -> str:
    """Return the arguments of a run's command, one a line of the shell.

    Args:
        execution: how jobs are executed, as JSON.
    """
    values = {"settings": run.settings_json, "seed": run.seed}
    values |= {role: parent.folder for role, parent in run.parents.items()}
    values |= {"digest": run.digest, "output": run.folder, "execution": execution}
    given = ((name, str(value)) for name, value in values.items() if value is not None)
    return " \\\n  ".join(f"--{name} {shlex.quote(value)}" for name, value in given)


def deleted_files(plan: Plan) -> list[str]:
    """Return the missing files of runs that a complete report shows: it would not ask for them."""
    if not Path(plan.folder, records.RECORD).exists():
        return []
    shown = (Path(run.folder, name) for run in plan.runs for name in run.files)
    return [str(path) for path in shown if not path.exists()]
