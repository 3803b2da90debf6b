"""What can stop a run: an exit code for each kind of error, and a message that says what to do."""

import errno
import os
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

from assay.runs import identity, units


class ExitCode(IntEnum):
    """Exit code of a job that fails; the numbers follow sysexits.h where it has one."""

    DATA = 65  # a file is missing, damaged or edited
    DEVICE = 69  # the GPU was lost
    CODE = 70  # an exception in the code, perhaps in a plug-in
    MEMORY = 71  # of the host or the device
    DISK = 74  # full, or failing
    STOPPED = 75  # by a signal or with the workflow; the next run resumes
    DIVERGED = 76  # the loss is no longer finite
    PERMISSION = 77  # a folder cannot be written
    CHANGED = 78  # the code or the machine is not the one that this run was planned for


PERMANENT = (ExitCode.DATA, ExitCode.CODE, ExitCode.DIVERGED, ExitCode.CHANGED)  # no use to retry
CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT)
LONGEST_REASON = 600  # characters of a message; the log contains all of it
LOG_WORDS = 25  # of a log that are quoted
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
NO_MEMORY = ("an't allocate memory", "annot allocate memory", "not enough memory", "bad_alloc",
             "failed to map segment")  # fmt: skip
AGAIN = "run snakemake again"


class JobError(Exception):
    """An error that the user can fix; the text says where it is, what is wrong and what to do."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.code = code


def one_line(error: BaseException, longest: int = 300) -> str:
    """Return an exception's message on one line, cut if too long; its type if it is empty."""
    text = " ".join(str(error).split()) or type(error).__name__
    return f"{text[:longest]} ..." if len(text) > longest else text


def describe_exit(code: int | None, log: str) -> str:
    """Return why a process ended that wrote no `failure.json`.

    Args:
        code: its exit code, or minus the signal that ended it; None if that is not known.
        log: its output.
    """
    words = " ".join(log.split()[-LOG_WORDS:])
    last = f"; its log ends with: {words}" if words else ""
    if code == ExitCode.DISK:
        return f"the disk is full: free some space and {AGAIN}; saved work is kept"
    if code is not None and code < 0:
        return _describe_signal(signal.Signals(-code), last)
    what = "exited" if code is None else f"exited with code {code}"
    return f"{what} without an error message; a plug-in may have called sys.exit(){last}"


def _describe_signal(number: signal.Signals, last: str) -> str:
    if number in CRASHES:
        return f"crashed ({number.name}), in a compiled library or a plug-in{last}"
    if number != signal.SIGKILL:
        return f"was stopped by {number.name} while it was starting; {AGAIN}"
    return f"was killed (SIGKILL), by a user or for lack of memory; {AGAIN} to resume"


def explain(
    error: BaseException, settings: dict[str, Any] | None, output: Path
) -> tuple[ExitCode, str]:
    """Return the exit code of an exception, and a message for the user.

    Args:
        settings: of the run; None while its packages are imported.
        output: folder of the run.
    """
    for cause in _causes(error):
        if isinstance(cause, JobError):
            return cause.code, str(cause)
        for kind in KINDS:
            if kind.matches(cause):
                return kind.code, kind.message(cause, settings, output)
    name, text = type(error).__name__, one_line(error, LONGEST_REASON)
    return ExitCode.CODE, f"{name if text == name else f'{name}: {text}'}{_where(error)}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


class Kind(NamedTuple):
    """A kind of error: how to recognise it, its exit code, and its message with the remedy."""

    matches: Callable[[BaseException], bool]
    code: ExitCode
    message: Callable[[BaseException, dict[str, Any] | None, Path], str]


def _has_errno(*numbers: int) -> Callable[[BaseException], bool]:
    return lambda error: isinstance(error, OSError) and error.errno in numbers


def _says(*fragments: str) -> Callable[[BaseException], bool]:
    return lambda error: all(fragment in str(error) for fragment in fragments)


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    kinds = (RuntimeError, ImportError)
    return isinstance(error, kinds) and any(words in str(error) for words in NO_MEMORY)


def _disk_full(error: Any, settings: dict[str, Any] | None, output: Path) -> str:
    free = f", {units.size(shutil.disk_usage(output).free)} are left" if output.exists() else ""
    what = f"{error.filename or output}: the disk is full{free}"
    return f"{what}: free some space and {AGAIN}; saved work is kept"


def _not_allowed(error: Any, settings: dict[str, Any] | None, output: Path) -> str:
    path = Path(error.filename or output)
    if path.is_file() and not os.access(path, os.R_OK):
        return f"{path}: cannot be read ({error.strerror}): make it readable for you and {AGAIN}"
    remedy = f"make the folder writable for you and {AGAIN}; saved work is kept"
    return f"{path}: cannot be written ({error.strerror}): {remedy}"


def _out_of_memory(error: BaseException, settings: dict[str, Any] | None, output: Path) -> str:
    device = "the GPU" if type(error).__name__ == "OutOfMemoryError" else "the machine"
    lines = str(error).splitlines()
    detail = f" ({lines[0][:200]})" if lines else ""
    if settings is None:
        remedy = "raise the limit on memory, if there is one (ulimit -v)"
    elif "batch_size" in settings:
        now = settings["batch_size"]
        remedy = f"lower batch_size (now {now}) or the model's size in the study"
    else:
        remedy = "choose a smaller data set, or a machine with more memory"
    return (
        f"{device} has too little memory{detail}: {remedy}, or end other programs that use it; "
        "Assay never shrinks the batch automatically, because that would change the result"
    )


def _where(error: BaseException) -> str:
    """Return the line of this project's code that is nearest to where an exception was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(identity.SOURCE)]
    if not ours:
        return ""
    path = Path(ours[-1].filename).relative_to(identity.SOURCE.parent)
    return f", raised in {path}, line {ours[-1].lineno} ({ours[-1].name}); fix it and {AGAIN}"


KINDS = [
    Kind(_has_errno(*NO_SPACE), ExitCode.DISK, _disk_full),
    Kind(_has_errno(*NOT_ALLOWED), ExitCode.PERMISSION, _not_allowed),
    Kind(_has_errno(errno.ENOMEM), ExitCode.MEMORY, _out_of_memory),
    Kind(_is_out_of_memory, ExitCode.MEMORY, _out_of_memory),
    Kind(
        lambda error: type(error).__name__ == "AcceleratorError",
        ExitCode.DEVICE,
        lambda error, *_: (
            f"the GPU failed ({str(error).splitlines()[0]}): check nvidia-smi and {AGAIN} to resume"
        ),
    ),
    Kind(
        _says("DataLoader worker", "exited unexpectedly"),
        ExitCode.STOPPED,
        lambda *_: (
            f"a loader worker was killed, by a user or for lack of memory: {AGAIN}, with fewer "
            "execution.loader_workers if it happens again"
        ),
    ),
    Kind(
        _says("got mixed torch.Tensor and DTensor"),
        ExitCode.CODE,
        lambda error, *_: (
            "the weights are sharded (fsdp: true) and were used outside of training_step and "
            "validation_step, or by an optimizer that does not support DTensor: delete fsdp"
            f"{_where(error)}"
        ),
    ),
    Kind(
        _says("operator torchvision::nms does not exist"),
        ExitCode.CODE,
        lambda *_: (
            "torchvision was built for another version of torch, and is not needed: python -m pip "
            "uninstall torchvision"
        ),
    ),
    Kind(
        lambda error: isinstance(error, KeyboardInterrupt),
        ExitCode.STOPPED,
        lambda *_: "stopped: received SIGINT; snakemake resumes it",
    ),
]
