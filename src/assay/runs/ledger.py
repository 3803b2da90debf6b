"""The ledger: what was spent on a run, in seconds of wall time."""

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


# What counts as training time, as others define it.
RULES = {
    "steps": ("train", "data_wait"),
    "algoperf": ("compile", "train", "data_wait"),
    "mlperf": ("data", "train", "data_wait", "validate", "checkpoint", "other", "wasted"),
}
WORDS = {
    "steps": "optimisation steps alone",
    "algoperf": "optimisation steps and compilation (AlgoPerf's rule)",
    "mlperf": "all from the first look at the data to the end of training, with evaluation and "
    "lost work, without building and compilation (MLPerf's rule)",
}


def training_seconds(seconds: Mapping[str, float], rule: str) -> float:
    """The part of a ledger that is training time.

    Args:
        seconds: by phase.
        rule: of `RULES`: steps alone; AlgoPerf's, in which compilation counts and evaluation does
            not; MLPerf's, which runs without a pause from the first look at the data to the end.
    """
    return sum(seconds.get(phase, 0.0) for phase in RULES[rule])


class Ledger:
    """A clock that is always in exactly one phase, so that the phases sum to the wall time.

    It starts when the process did: all until the first `enter` counts as `import`. A run that goes
    on after a crash keeps the seconds of the work that was saved. What the crash has cost counts as
    `lost`: the work that was not saved, and the start of the new process.

    Attributes:
        seconds: by phase.
        started: when this process began, on the clock of `time.perf_counter`.
    """

    def __init__(self, synchronize: Callable[[], None] | None = None) -> None:
        """Start the clock.

        Args:
            synchronize: waits for the device; called at each border of two phases.
        """
        self.synchronize = synchronize or (lambda: None)
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.phase = "import"
        self._since = time.perf_counter()
        self.started = self._since - _process_age_seconds()
        self.seconds["import"] = self._since - self.started

    def enter(self, phase: str) -> None:
        """Close the present phase and open another."""
        self.synchronize()
        now = time.perf_counter()
        self.seconds[self.phase] += now - self._since
        self.phase, self._since = phase, now

    @contextmanager
    def spend(self, phase: str) -> Iterator[None]:
        """Enter a phase for the length of a block, then go back to the one before."""
        before = self.phase
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    def part(self, phase: str, seconds: float) -> None:
        """Count some of the present phase's seconds as those of another, without a border."""
        self.seconds[phase] += seconds
        self.seconds[self.phase] -= seconds

    def lose(self, seconds: float) -> None:
        """Count work of earlier processes that was not saved."""
        self.seconds["wasted"] += seconds

    def resume(self, kept: dict[str, float]) -> None:
        """Go on from saved work: whatever else was spent so far is lost, but for waiting.

        Args:
            kept: seconds by phase of the work that was saved.
        """
        spent, waited = self.total()["wall"], self.seconds["wait"]
        self.seconds = {phase: kept.get(phase, 0.0) for phase in PHASES}
        self.seconds["wait"] += waited
        self.lose(max(0.0, spent - waited - sum(kept.values())))

    def total(self) -> dict[str, float]:
        """Seconds by phase, and their sum as `wall`."""
        self.enter(self.phase)
        return {**self.seconds, "wall": sum(self.seconds.values())}


def _process_age_seconds() -> float:
    """How long ago the operating system started this process; 0 where it does not tell."""
    try:
        with open("/proc/self/stat") as file:
            started_ticks = int(file.read().rsplit(")", 1)[1].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - started_ticks / os.sysconf("SC_CLK_TCK")
        return max(0.0, age)
    except (OSError, AttributeError):
        return 0.0
