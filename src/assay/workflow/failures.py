"""Why a job failed: what it wrote in failure.json, or what its end tells."""

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from assay.runs import errors, records
from assay.runs.errors import ExitCode

FULL_BYTES = 100_000  # a disk with less free space than this is full


def reason(folder: Path, logs: Sequence[str], code: int | None, message: str | None) -> str:
    """Return why a job failed, and write it to failure.json if the job did not.

    Args:
        folder: of the run.
        logs: the job's own log first, the log of a cluster's executor last.
        code: the exit code, or minus the number of the signal that ended the job; None if unknown.
        message: what the executor says, if anything.
    """
    failure, log = records.read_failure(folder), logs[0]
    if not failure:
        log = logs[-1]
        text = Path(log).read_text(errors="replace") if Path(log).exists() else ""
        if shutil.disk_usage(".").free < FULL_BYTES:
            code = ExitCode.DISK
        failure = {
            "reason": message or errors.describe_exit(code, text),
            "code": 1 if code is None else code,
        }
        with contextlib.suppress(OSError):
            records.write_failure(folder, failure)
    return f"{failure['reason']} [exit code {failure['code']}, {log}]"
