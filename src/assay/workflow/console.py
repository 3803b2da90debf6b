"""The terminal: a line per job in place of Snakemake's blocks, and why each run is due.

Each class filters the records that Snakemake logs (`LogEvent`) before its handlers print them.
Records that say nothing to these filters are printed as Snakemake prints them.
"""

import logging
import logging.handlers
import subprocess
import sys
from collections.abc import Callable
from logging import LogRecord
from pathlib import Path

from snakemake.logging import DefaultFormatter, logger
from snakemake_interface_logger_plugins.common import LogEvent

from assay.study.plan import STAGES, Plan
from assay.workflow import failures, planning
from assay.workflow.command_line import CommandLine
from assay.workflow.progress import Progress

HIDDEN = (
    LogEvent.WORKFLOW_STARTED,
    LogEvent.RESOURCES_INFO,
    LogEvent.JOB_STARTED,
    LogEvent.PROGRESS,
    LogEvent.SHELLCMD,
)
OURS = "from_assay"  # marks the records of this module


def install(
    command: CommandLine, plan: Plan, cores: int, on_start: Callable[[], None]
) -> "Brief | None":
    """Call a function when Snakemake starts to execute, and show in brief what it does.

    Args:
        cores: that all jobs share.

    Returns:
        The filter of a run whose terminal is brief; None for a dry run, or if a person chose with
        Snakemake's own options what it prints.
    """

    def dry_table(reasons: dict[str, str]) -> list[str]:
        runs = {folder: reason for folder, reason in reasons.items() if folder in plan.by_folder}
        return planning.table(plan, runs, plan.folder in reasons, cores)

    def table(jobs: dict[str, int]) -> list[str]:
        runs = planning.due(plan, command)
        known = planning.counts(plan, runs) == {k: n for k, n in jobs.items() if k in STAGES}
        return planning.table(plan, runs, "report" in jobs, cores) if known else []

    brief = Brief(table, cores) if command.is_plain and not command.is_dry else None
    if not command.is_dry:
        logger.addFilter(OnStart(on_start))
    if command.is_plain:
        logger.addFilter(brief or DryRun(dry_table))
    return brief


class OnStart(logging.Filter):
    """Calls a function when Snakemake begins to execute: after parsing, before planning the jobs.

    It has no other hook there: `onstart` comes after planning, and only if a job is due.
    """

    def __init__(self, action: Callable[[], None]) -> None:
        super().__init__()
        self.action = action

    def filter(self, record: LogRecord) -> bool:
        if _event(record) == LogEvent.WORKFLOW_STARTED:
            self.action()
        return True


class DryRun(logging.Filter):
    """Adds to the end of a dry run why each run is due."""

    def __init__(self, table: Callable[[dict[str, str]], list[str]]) -> None:
        """Take a function that turns folders and Snakemake's own reasons into lines."""
        super().__init__()
        self.table = table
        self.reasons: dict[str, str] = {}

    def filter(self, record: LogRecord) -> bool:
        event = _event(record)
        if event == LogEvent.JOB_INFO and record.output:
            self.reasons[_folder(record)] = f"Snakemake says: {record.reason}"
        if event == LogEvent.RUN_INFO and self.reasons:  # the second one, after the list of jobs
            logger.info("\n".join([record.msg, *self.table(self.reasons), ""]))
            return False
        return True


class Brief(logging.Filter):
    """Prints a line when a job starts, ends or fails; the log file gets every detail."""

    def __init__(self, table: Callable[[dict[str, int]], list[str]], cores: int) -> None:
        """Take a function that turns the number of jobs of each rule into lines, and the cores."""
        super().__init__()
        self.table = table
        self.progress = Progress(cores)
        self.commands: dict[int, str] = {}  # of the jobs that run
        self.exit_codes: dict[int, int] = {}
        self.printed: set[str] = set()
        self.details = logging.handlers.MemoryHandler(capacity=1)
        self.texts: dict[LogEvent | None, Callable[[LogRecord], str | None]] = {
            LogEvent.RUN_INFO: self._plan,
            LogEvent.JOB_INFO: self._start,
            LogEvent.JOB_FINISHED: self._finish,
            LogEvent.JOB_ERROR: self._fail,
            LogEvent.ERROR: self._error,
            None: self._message,
            **dict.fromkeys(HIDDEN, _nothing),
        }

    def filter(self, record: LogRecord) -> bool:
        """Replace a record; those without a replacement pass."""
        replace = self.texts.get(_event(record))
        text = replace(record) if replace else None
        if text is None:
            return True
        self.details.handle(record)
        if text:
            logger.log(record.levelno, text, extra={OURS: True})
        return False

    def write_details(self, log: str) -> None:
        """Write the records that the terminal does not show to Snakemake's log file."""
        file = logging.FileHandler(log)
        file.setFormatter(DefaultFormatter())
        self.details.setTarget(file)

    def _plan(self, record: LogRecord) -> str:
        self.progress.expect(record.stats)
        return "\n".join([*(self.table(record.stats) or [record.msg]), ""])

    def _start(self, record: LogRecord) -> str:
        self.commands[record.jobid] = record.shellcmd or ""
        return self.progress.start(record.jobid, record.rule_name, record.wildcards)

    def _finish(self, record: LogRecord) -> str:
        self.commands.pop(record.job_id, None)
        return self.progress.finish(record.job_id)

    def _fail(self, record: LogRecord) -> str | None:
        if not (record.log and record.output):
            return None
        self.commands.pop(record.jobid, None)
        code = self.exit_codes.pop(record.jobid, None)
        why = failures.reason(Path(_folder(record)), record.log, code, record.rule_msg)
        return self.progress.fail(record.jobid, why)

    def _error(self, record: LogRecord) -> str | None:
        """Note how a job's command ended, which Snakemake reports before the job's error."""
        ended = _command_error(sys.exception())
        jobs = [job for job, text in self.commands.items() if ended and text and text in ended.cmd]
        self.exit_codes |= {job: ended.returncode for job in jobs if ended}
        return "" if jobs else None

    def _message(self, record: LogRecord) -> str | None:
        """Hide what has been printed before, such as that jobs are being selected."""
        text = str(record.msg)
        repeated = text in self.printed and record.levelno == logging.INFO
        self.printed.add(text)
        return "" if repeated and not hasattr(record, OURS) else None


def _nothing(record: LogRecord) -> str:
    return ""


def _event(record: LogRecord) -> LogEvent | None:
    return getattr(record, "event", None)


def _folder(record: LogRecord) -> str:
    """Return the folder of the run that a job writes."""
    return str(Path(record.output[0]).parent)


def _command_error(error: BaseException | None) -> subprocess.CalledProcessError | None:
    """Return the failure of a command that caused an exception, if one did."""
    while error is not None and not isinstance(error, subprocess.CalledProcessError):
        error = error.__cause__ or error.__context__
    return error
