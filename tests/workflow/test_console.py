"""What the terminal shows of the events that Snakemake logs."""

import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from snakemake.logging import logger
from snakemake_interface_logger_plugins.common import LogEvent

from assay.workflow.console import Brief, DryRun, OnStart
from assay.workflow.progress import Progress

WILDCARDS = {"name": "scratch", "seed": "1", "digest": "0" * 16}


class Terminal(logging.Handler):
    """Keeps what Snakemake's own handler would print."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """Snakemake's logger with one handler, and with the filters that a test adds."""
    handler, level = Terminal(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.filters.clear()
    logger.setLevel(level)


def brief() -> Brief:
    shown = Brief(lambda stats: [f"would run: {stats['finetune']}"], cores=2)
    logger.addFilter(shown)
    return shown


def log(event: LogEvent, message: str = "of Snakemake", **fields: Any) -> None:
    level = logging.ERROR if "ERROR" in event.name else logging.INFO
    logger.log(level, message, extra={"event": event, **fields})


def start(job: int, command: str = "train", **changes: Any) -> None:
    fields = {"rule_name": "finetune", "wildcards": WILDCARDS, "output": []} | changes
    log(LogEvent.JOB_INFO, jobid=job, shellcmd=command, **fields)


def fail(job: int, folder: Path) -> None:
    log(
        LogEvent.JOB_ERROR, jobid=job, rule_msg=None, log=[str(folder / "log.txt")],
        output=[str(folder / "record.json")],
    )  # fmt: skip


def end(command: str, code: int) -> None:
    """Report the end of a command, as Snakemake does it: while it handles the exception."""
    try:
        raise RuntimeError from subprocess.CalledProcessError(code, f"set -e; {command}")
    except RuntimeError:
        log(LogEvent.ERROR, "CalledProcessError", exception="RuleException")


def test_a_job_is_a_line_at_its_start_and_a_line_at_its_end(terminal: Terminal) -> None:
    brief()
    log(LogEvent.WORKFLOW_STARTED)
    log(LogEvent.RUN_INFO, stats={"finetune": 2, "all": 1, "total": 3})
    start(1)
    log(LogEvent.JOB_FINISHED, job_id=1)
    start(2, rule_name="all", wildcards={})
    log(LogEvent.JOB_FINISHED, job_id=2)
    plan, first, last = terminal.lines
    assert plan == "would run: 2\n"
    assert first.endswith("  start  finetune scratch seed 1")
    assert "  done   finetune scratch seed 1 in " in last and "[1 of 2, about " in last


@pytest.mark.parametrize(
    ("code", "reason"),
    ((-9, "was killed (SIGKILL)"), (-11, "crashed (SIGSEGV)"), (3, "exited with code 3")),
)
def test_the_line_of_a_failed_job_tells_how_its_command_ended(
    terminal: Terminal, tmp_path: Path, code: int, reason: str
) -> None:
    brief()
    start(1, "one")
    start(2, "other")
    end("other", code)
    fail(2, tmp_path)
    assert f"FAILED finetune scratch seed 1: {reason}" in terminal.lines[-1]
    assert len(terminal.lines) == 3  # Snakemake's own report of the error is hidden


def test_an_error_that_is_not_of_a_job_is_printed(terminal: Terminal) -> None:
    brief()
    start(1)
    end("another command", 1)
    log(LogEvent.ERROR, "WorkflowError: no such file", exception="WorkflowError")
    assert terminal.lines[1:] == ["CalledProcessError", "WorkflowError: no such file"]


def test_a_message_is_printed_once_and_a_warning_each_time(terminal: Terminal) -> None:
    brief()
    for _ in range(2):
        logger.info("Select jobs to execute...")
        logger.warning("The disk is slow")
    assert terminal.lines == ["Select jobs to execute...", "The disk is slow", "The disk is slow"]


def test_the_log_file_gets_what_the_terminal_does_not_show(
    terminal: Terminal, tmp_path: Path
) -> None:
    shown = brief()
    log(LogEvent.SHELLCMD, "ignored", shellcmd="train --fast", cmd="train --fast")
    shown.write_details(str(tmp_path / "log"))
    log(LogEvent.PROGRESS, done=1, total=4)
    assert (tmp_path / "log").read_text() == "train --fast\n1 of 4 steps (25%) done\n"
    assert terminal.lines == []


def test_a_dry_run_ends_with_why_each_run_is_due(terminal: Terminal) -> None:
    logger.addFilter(DryRun(lambda reasons: [f"{k}: {v}" for k, v in reasons.items()]))
    log(LogEvent.RUN_INFO, "1 job")
    start(1, output=["results/one/record.json"], reason="Missing output files")
    log(LogEvent.RUN_INFO, "1 job")
    text = "1 job\nresults/one: Snakemake says: Missing output files\n"
    assert terminal.lines == ["1 job", "of Snakemake", text]


def test_the_start_of_the_execution_is_noticed_and_can_be_refused(terminal: Terminal) -> None:
    def refuse() -> None:
        raise SystemExit("not here")

    logger.addFilter(OnStart(refuse))
    log(LogEvent.RUN_INFO, "1 job")
    with pytest.raises(SystemExit, match="not here"):
        log(LogEvent.WORKFLOW_STARTED)


def test_the_remaining_time_is_predicted_from_the_jobs_that_are_done() -> None:
    seconds = iter((0, 10, 10, 14)).__next__
    progress = Progress(cores=2, clock=seconds)
    progress.expect({"finetune": 3, "report": 1, "all": 1, "total": 5})
    progress.start(1, "finetune", WILDCARDS)
    progress.seconds["report"] = [2.0]
    assert "[1 of 4, about 10 s left]" in progress.finish(1)  # 2 x 10 s on 2 cores
    progress.start(2, "finetune", WILDCARDS)
    assert progress.remaining_seconds() == (20 - 4) / 2
