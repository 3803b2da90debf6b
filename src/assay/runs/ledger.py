"""The ledger: how the wall time of a run is divided into phases."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

PHASES = (
    "import",
    "wait",
    "data",
    "build",
    "compile",
    "train",
    "data_wait",
    "validate",
    "predict",
    "checkpoint",
    "write",
    "wasted",
    "other",
)
RULES = {  # the phases that count as training time, by the benchmark that defines it so
    "steps": ("train", "data_wait"),
    "algoperf": ("compile", "train", "data_wait"),
    "mlperf": ("data", "train", "data_wait", "validate", "checkpoint", "other", "wasted"),
}
DESCRIPTIONS = {
    "steps": "optimization steps alone",
    "algoperf": "optimization steps and compilation (AlgoPerf's rule)",
    "mlperf": "everything from the first access to the data to the end of training, with "
    "validation and wasted work, without building and compilation (MLPerf's rule)",
}


def training_seconds(seconds: Mapping[str, float], rule: str) -> float:
    """Return the part of a ledger that is training time.

    Args:
        seconds: by phase.
        rule: of `RULES`: steps alone; AlgoPerf's, which includes compilation and excludes
            validation; MLPerf's, which runs without a pause from the first access to the data.
    """
    return sum(seconds.get(phase, 0.0) for phase in RULES[rule])


class Ledger:
    """A clock that is always in exactly one phase, so that the phases sum to the wall time.

    It starts with the process: everything before the first `enter` counts as `import`. A resumed
    run keeps the seconds of the work that was saved. The cost of the interruption counts as
    `wasted`: the work that was not saved, and the start of the new process.

    Attributes:
        seconds: by phase.
        started: when this process began, on the clock of `time.perf_counter`.
    """

    def __init__(self, synchronize: Callable[[], None] | None = None) -> None:
        """Start the clock.

        Args:
            synchronize: waits for the device; called whenever the phase changes.
        """
        self.synchronize = synchronize or (lambda: None)
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.phase = "import"
        self._since = time.perf_counter()
        self.started = self._since - _process_age_seconds()
        self.seconds["import"] = self._since - self.started

    def enter(self, phase: str) -> None:
        """End the current phase and begin another."""
        self.synchronize()
        now = time.perf_counter()
        self.seconds[self.phase] += now - self._since
        self.phase, self._since = phase, now

    @contextmanager
    def spend(self, phase: str) -> Iterator[None]:
        """Enter a phase for the length of a block, then return to the previous one."""
        before = self.phase
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    def move(self, phase: str, seconds: float) -> None:
        """Count some of the current phase's seconds as another phase's, without entering it."""
        self.seconds[phase] += seconds
        self.seconds[self.phase] -= seconds

    def waste(self, seconds: float) -> None:
        """Add the work of earlier processes that was not saved."""
        self.seconds["wasted"] += seconds

    def resume(self, saved: dict[str, float]) -> None:
        """Continue from saved work: all other seconds so far are wasted, except for waiting.

        Args:
            saved: seconds by phase of the work that was saved.
        """
        spent, waited = self.total()["wall"], self.seconds["wait"]
        self.seconds = {phase: saved.get(phase, 0.0) for phase in PHASES}
        self.seconds["wait"] += waited
        self.waste(max(0.0, spent - waited - sum(saved.values())))

    def total(self) -> dict[str, float]:
        """Return the seconds by phase, and their sum as `wall`."""
        self.enter(self.phase)
        return {**self.seconds, "wall": sum(self.seconds.values())}


def _process_age_seconds() -> float:
    """Return how long ago the operating system started this process; 0 if that is not known."""
    try:
        with open("/proc/self/stat") as file:
            started_ticks = int(file.read().rsplit(")", 1)[1].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / os.sysconf("SC_CLK_TCK")
        return max(0.0, age)
    except (OSError, AttributeError):
        return 0.0
