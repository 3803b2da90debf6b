"""Error messages about data."""

import os
from collections.abc import Sequence

from assay.runs.errors import ExitCode, JobError

MAX_LISTED = 10


def data_error(where: str, problem: str, items: Sequence[str], remedy: str) -> JobError:
    """Return an error that counts the items with a problem and lists the first of them."""
    listed = ", ".join(items[:MAX_LISTED])
    more = f" and {len(items) - MAX_LISTED} more" if len(items) > MAX_LISTED else ""
    return JobError(f"{where}: {len(items)} {problem} ({listed}{more}): {remedy}", ExitCode.DATA)


def printable(path: str | os.PathLike[str]) -> str:
    """Return a path as text that can be printed, whatever bytes its name has."""
    return repr(os.fsencode(path).decode("utf-8", "replace"))[1:-1]
