"""Errors have an exit code and a message with a remedy."""

import errno
import signal
from pathlib import Path

import pytest

from assay.runs import errors
from assay.runs.errors import ExitCode, JobError


class OutOfMemoryError(RuntimeError):
    """Named as torch's own."""


@pytest.mark.parametrize(
    ("error", "code", "words"),
    (
        (JobError("what to do", ExitCode.DATA), ExitCode.DATA, "what to do"),
        (OSError(errno.ENOSPC, "full", "weights"), ExitCode.DISK, "weights: the disk is full"),
        (OSError(errno.EROFS, "read-only"), ExitCode.PERMISSION, "make the folder writable"),
        (MemoryError(), ExitCode.MEMORY, "lower batch_size (now 8)"),
        (OutOfMemoryError("CUDA"), ExitCode.MEMORY, "the GPU has too little memory (CUDA)"),
        (RuntimeError("got mixed torch.Tensor and DTensor"), ExitCode.CODE, "delete fsdp"),
        (KeyboardInterrupt(), ExitCode.STOPPED, "received SIGINT"),
        (ValueError("one\n  two"), ExitCode.CODE, "ValueError: one two"),
        (ValueError(), ExitCode.CODE, "ValueError"),
    ),
)
def test_each_error_has_an_exit_code_and_a_message(
    tmp_path: Path, error: BaseException, code: ExitCode, words: str
) -> None:
    actual, message = errors.explain(error, {"batch_size": 8}, tmp_path)
    assert actual == code and words in message and "\n" not in message


def test_the_cause_of_an_error_decides_what_is_reported(tmp_path: Path) -> None:
    try:
        try:
            raise OSError(errno.ENOSPC, "full")
        except OSError as cause:
            raise RuntimeError("could not save") from cause
    except RuntimeError as error:
        assert errors.explain(error, None, tmp_path)[0] == ExitCode.DISK


@pytest.mark.parametrize(
    ("code", "words"),
    (
        (3, "exited with code 3 without an error message; a plug-in may have called sys.exit()"),
        (None, "exited without an error message"),
        (ExitCode.DISK, "the disk is full"),
        (-signal.SIGKILL, "was killed (SIGKILL), by a user or for lack of memory"),
        (-signal.SIGSEGV, "crashed (SIGSEGV), in a compiled library or a plug-in; its log ends"),
        (-signal.SIGTERM, "was stopped by SIGTERM while it was starting"),
    ),
)
def test_a_process_that_leaves_no_reason_is_described(code: int | None, words: str) -> None:
    assert words in errors.describe_exit(code, "a line of the log")


def test_long_messages_are_cut() -> None:
    assert errors.one_line(ValueError("a\nb " + 900 * "c"), 5) == "a b c ..."
