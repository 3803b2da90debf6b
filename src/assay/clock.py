"""The ledger: what a process spent its wall time on."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PHASES = ("import", "data", "build", "train", "validate", "predict", "write", "rest")


class Ledger:
    """A clock that is always in exactly one phase, so that the phases sum to the wall time.

    It starts when the process did: all until the first `enter` counts as `import`.
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
        self.seconds["import"] = _process_age_seconds()

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
