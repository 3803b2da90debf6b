"""How a training is carried out; nothing here can change a result, so nothing counts for it."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Execution:
    """How a training is carried out.

    Attributes:
        checkpoint_seconds: the longest time between two checkpoints within a round. At the end of a
            round there is one wherever it costs under 2% of the time since the last.
        loader_workers: processes that cut batches ahead of the training; with 0 it does so itself.
        progress_seconds: the longest time between two lines of progress in the log; 0 writes none.
        fork_server: fork local jobs from a process that has loaded the packages.
        timing: `shared` lets jobs run side by side; with `exclusive` one that is timed has its GPU,
            or on a CPU all cores, to itself.
        jobs_per_gpu: how many jobs share a GPU.
        data_folder: where data files are looked for before they are downloaded; None leaves that to
            the environment variable ASSAY_DATA.
        intervals: stop a training after this number of validation intervals, as `assay adopt` does;
            None trains all of them.
    """

    checkpoint_seconds: float = 60.0
    loader_workers: int = 0
    progress_seconds: float = 10.0
    fork_server: bool = True
    timing: Literal["shared", "exclusive"] = "shared"
    jobs_per_gpu: int = 1
    data_folder: str | None = None
    intervals: int | None = None


DEFAULT = Execution()
