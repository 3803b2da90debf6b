"""What happens around the jobs: before Snakemake plans them, after the last, after a failure."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import psutil
from snakemake.logging import logger

from assay.commands import preflight
from assay.jobs import forkserver, launch
from assay.runs import identity, locks, records, supervision
from assay.study.plan import LINKS, Plan
from assay.workflow.command_line import CommandLine

TORCH_STAGES = ("pretrain", "finetune", "evaluate")
HELD: list[IO[str]] = []  # the lock of this folder, held until this process ends


def take_lock() -> None:
    """Make this the only snakemake in its folder, until this process ends in whatever way.

    Raises:
        SystemExit: another one is running.
    """
    path = locks.WORKFLOW
    try:
        held = locks.acquire(path)
    except OSError as error:
        logger.warning(f"{path} cannot be locked ({error.strerror}): run one snakemake at a time")
        return
    if held is None:
        raise SystemExit(
            f"Another snakemake is running in this folder: {locks.holder(path)}. Wait until it "
            "ends, or stop it."
        )
    HELD.append(held)


def check_writable(plan: Plan) -> None:
    """Refuse folders that cannot be written, before the first job.

    Raises:
        SystemExit: names the first such folder.
    """
    due = [run.folder for run in plan.runs if not Path(run.record).exists()]
    for folder in map(Path, (".snakemake", "results", plan.folder, *due)):
        existing = next(part for part in (folder, *folder.parents) if part.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            problem = "cannot be written" if existing.is_dir() else "is not a folder"
            raise SystemExit(
                f"{existing}: {problem}, but the workflow writes {folder}/: make it writable for "
                "you, or work in another folder"
            )


def link_runs(plan: Plan) -> None:
    """Point results/current/<study>/<stage>/<name>/seed<k> to each run of the present plan."""
    links = {Path(link): folder for link, folder in plan.links().items()}
    for link, folder in links.items():
        target = os.path.relpath(folder, link.parent)
        if not link.is_symlink() and link.is_dir():  # a copy that followed the link
            shutil.rmtree(link)
        if not (link.is_symlink() and os.readlink(link) == target):
            link.parent.mkdir(parents=True, exist_ok=True)
            fresh = link.with_name(f"{link.name}.{os.getpid()}")
            fresh.symlink_to(target)
            fresh.replace(link)
    for path in Path(LINKS, plan.name).glob("*/**/*"):
        if path.is_symlink() and path not in links:
            path.unlink()


def torch_jobs(plan: Plan) -> int:
    """Return the number of incomplete runs that need torch."""
    return sum(run.stage in TORCH_STAGES and not Path(run.record).exists() for run in plan.runs)


def start_fork_server() -> None:
    """Import the packages once, in a process that jobs are forked from, while Snakemake plans."""
    if sys.platform == "linux":
        os.environ[launch.FORK_SERVER] = forkserver.start()


def check_trainings(file: str, plan: Plan, folders: list[str]) -> None:
    """Refuse trainings that cannot start, before the first of several runs.

    Args:
        file: of the study, for messages.
        folders: of the runs that are due.

    Raises:
        SystemExit: names the trainings and why they cannot start.
    """
    try:
        refused = preflight.run(plan, folders)
    except KeyboardInterrupt:
        raise SystemExit("Stopped before the first job.") from None
    if refused:
        lines = (f"  {', '.join(names)}: {why}" for why, names in refused.items())
        raise SystemExit("\n".join([f"{file}: these trainings cannot start:", *lines]))


def propagate_termination() -> None:
    """Let the jobs save their state if only snakemake itself gets SIGTERM."""
    finish = signal.getsignal(signal.SIGTERM)

    def terminate(number: int, frame: object) -> None:
        for job in psutil.Process().children(recursive=True):
            job.terminate()
        finish(number, frame)

    signal.signal(signal.SIGTERM, terminate)


def delete_resume_folders(plan: Plan) -> None:
    """Delete what complete runs kept in order to resume, once Snakemake knows that they ended."""
    for run in plan.runs:
        folder = Path(run.folder)
        if Path(run.record).exists() and not locks.holder(folder / records.LOCK):
            shutil.rmtree(folder / records.RESUME, ignore_errors=True)


def write_partial_report(plan: Plan, command: CommandLine) -> None:
    """After a failure, report the runs that are complete and why the others are not."""
    if command.targets:
        return
    settings = identity.canonical(plan.report_settings)
    words = [sys.executable, "-m", "assay.report", "--settings", settings]
    words += ["--output", plan.folder, "--partial", "true"]
    done = subprocess.run(words, env={**os.environ, supervision.PARENT: ""}, capture_output=True)
    if done.returncode == 0 and Path(plan.folder, "index.html").exists():
        logger.error(f"The report of what is complete is {plan.folder}/index.html")
