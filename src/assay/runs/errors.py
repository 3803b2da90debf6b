"""What can stop a run: an exit code for each kind, and words that say what to do."""

import errno
import os
import shutil
import signal
import traceback
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any

from assay.runs import identity


class ExitCode(IntEnum):
    """How a job ends that does not succeed; the numbers follow sysexits.h where it has one."""

    DATA = 65  # a file is missing, damaged or edited
    DEVICE = 69  # the GPU was lost
    CODE = 70  # an exception in the code, a plug-in's perhaps
    MEMORY = 71  # of the host or the device
    DISK = 74  # full, or failing
    STOPPED = 75  # by a signal or with the workflow; goes on where it was
    DIVERGED = 76  # the loss is no longer finite
    PERMISSION = 77  # a folder cannot be written
    CHANGED = 78  # the code or the machine is not the one that this run was planned for


CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT)
LONGEST_REASON = 600  # characters of a message; a log holds it all
LASTING = (
    ExitCode.DATA,
    ExitCode.CODE,
    ExitCode.DIVERGED,
    ExitCode.CHANGED,
)  # trying again cannot help
FOREIGN_TORCHVISION = "operator torchvision::nms does not exist"
CUT_AND_WHOLE = "got mixed torch.Tensor and DTensor"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
NO_MEMORY = ("an't allocate memory", "annot allocate memory", "not enough memory", "bad_alloc",
             "failed to map segment")  # fmt: skip


class JobError(Exception):
    """Something the user can mend; its text says where it stands, what is wrong and what to do."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.code = code


def ended(code: int | None, log: str) -> str:
    """What to say of a process that has left no word.

    Args:
        code: its exit code, or minus the signal that ended it; None where that is not known.
        log: all that it has printed.
    """
    words = " ".join(log.split()[-25:])
    last = f"; its log ends with: {words}" if words else ""
    if code == ExitCode.DISK:
        return "the disk is full: free some space and run snakemake again; what was saved is kept"
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        if -code in CRASHES:
            return f"crashed ({name}), in a compiled library or a plug-in{last}"
        if -code != signal.SIGKILL:
            return f"was stopped by {name} while it was starting; run snakemake again"
        return (
            f"was killed ({name}), by hand or by the system for want of memory; run snakemake "
            "again: it goes on where it was"
        )
    what = "ended" if code is None else f"ended with exit code {code}"
    return f"{what} and left no word: does a plug-in end the process?{last}"


def explain(
    error: BaseException, settings: dict[str, Any] | None, output: Path
) -> tuple[ExitCode, str]:
    """The exit code that fits an exception, and a message for the user.

    Args:
        settings: of the run; None while its packages are loaded.
    """
    for cause in _causes(error):
        if isinstance(cause, JobError):
            return cause.code, str(cause)
        if isinstance(cause, OSError) and cause.errno in NO_SPACE:
            return ExitCode.DISK, _disk_full(Path(cause.filename or output), output)
        if isinstance(cause, OSError) and cause.errno in NOT_ALLOWED:
            where = cause.filename or output
            if Path(where).is_file() and not os.access(where, os.R_OK):
                what = f"{where}: cannot be read ({cause.strerror}): make it readable for you"
                return ExitCode.PERMISSION, f"{what} and run snakemake again"
            return (
                ExitCode.PERMISSION,
                f"{where}: cannot be written ({cause.strerror}): make the folder writable for you "
                "and run snakemake again; what was saved is kept",
            )
        if _is_out_of_memory(cause):
            return ExitCode.MEMORY, _out_of_memory(cause, settings)
        if type(cause).__name__ == "AcceleratorError":
            what = str(cause).splitlines()[0]
            return (
                ExitCode.DEVICE,
                f"the GPU failed ({what}): look at nvidia-smi and run snakemake again; it goes on "
                "where it was",
            )
        if "DataLoader worker" in str(cause) and "exited unexpectedly" in str(cause):
            return (
                ExitCode.STOPPED,
                "a loader worker was killed, by hand or by the system for want of memory: run "
                "snakemake again, with fewer execution.loader_workers if it comes back",
            )
        if CUT_AND_WHOLE in str(cause):
            what = "the weights are cut (fsdp: true), and were used outside of training_step and"
            more = "validation_step, or by an optimizer that does not know of that: delete fsdp"
            return ExitCode.CODE, f"{what} {more}{_where(error)}"
        if FOREIGN_TORCHVISION in str(cause):
            what = "torchvision was made for another build of torch, and nothing here needs it"
            return ExitCode.CODE, f"{what}: python -m pip uninstall torchvision"
        if isinstance(cause, KeyboardInterrupt):
            return ExitCode.STOPPED, "stopped: it got SIGINT; snakemake goes on where it was"
    text = " ".join(str(error).split())
    if len(text) > LONGEST_REASON:
        text = f"{text[:LONGEST_REASON]} ..."
    return ExitCode.CODE, f"{type(error).__name__}{text and f': {text}'}{_where(error)}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _disk_full(path: Path, output: Path) -> str:
    free = ""
    if output.exists():
        free = f", {shutil.disk_usage(output).free / 1e6:.1f} MB are left"
    return (
        f"{path}: the disk is full{free}: free some space and run snakemake again; what was saved "
        "is kept"
    )


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    kinds = (RuntimeError, ImportError)
    return isinstance(error, kinds) and any(words in str(error) for words in NO_MEMORY)


def _out_of_memory(error: BaseException, settings: dict[str, Any] | None) -> str:
    whose = "the GPU" if type(error).__name__ == "OutOfMemoryError" else "the machine"
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
        f"{whose} has too little memory{detail}: {remedy}, or end what else uses it; nothing is "
        "made smaller by itself, for that would change the result"
    )


def _where(error: BaseException) -> str:
    """The line of this project's code that is nearest to where an exception was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(identity.SOURCE)]
    if not ours:
        return ""
    path = Path(ours[-1].filename).relative_to(identity.SOURCE.parent)
    return (
        f", raised in {path}, line {ours[-1].lineno} ({ours[-1].name}); mend it and run snakemake "
        "again"
    )
