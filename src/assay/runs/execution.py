"""How jobs are carried out. Nothing here can change a result, so no hash contains it."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Le, MinLen

Seconds = Annotated[float, Ge(0), Le(1_000_000)]


@dataclass(frozen=True)
class ExecutionSettings:
    """How jobs are carried out; no change here reruns anything.

    Attributes:
        checkpoint_seconds: longest time between two checkpoints within a validation interval. At
            the end of an interval there is one wherever it costs under 2% of the time since the
            last.
        loader_workers: processes that prepare batches ahead of the training; with 0 the training
            does so itself.
        progress_seconds: longest time between two lines of progress in the log; 0 writes none.
        fork_server: fork local jobs from a process that has loaded the packages.
        timing: `shared` runs jobs side by side; `exclusive` gives each timed job a GPU, or on a
            CPU all cores, to itself.
        jobs_per_gpu: number of jobs that share a GPU.
        data_folder: where data files are looked for before they are downloaded. By default the
            environment variable ASSAY_DATA says it.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    checkpoint_seconds: Seconds = 60.0
    loader_workers: Annotated[int, Ge(0), Le(1024)] = 0
    progress_seconds: Seconds = 10.0
    fork_server: bool = True
    timing: Literal["shared", "exclusive"] = "shared"
    jobs_per_gpu: Annotated[int, Ge(1), Le(1024)] = 1
    data_folder: Annotated[str, MinLen(1)] | None = None


@dataclass(frozen=True)
class Execution(ExecutionSettings):
    """How one job is carried out.

    Attributes:
        intervals: stop a training after this number of validation intervals, as `assay adopt` does;
            None trains all of them.
    """

    intervals: int | None = None


DEFAULT = Execution()
