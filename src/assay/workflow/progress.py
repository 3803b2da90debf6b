"""The progress of a workflow: what runs, how much is done, and how long it will still take."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping

from assay.runs.units import duration
from assay.study.plan import STAGES

COUNTED = (*STAGES, "report")  # rules whose jobs take time


class Progress:
    """Counts jobs, and predicts the remaining time from those that are done."""

    def __init__(self, cores: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.cores, self.clock = cores, clock
        self.expected: dict[str, int] = {}
        self.running: dict[int, tuple[str, str, float]] = {}
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.done = 0

    def expect(self, jobs: Mapping[str, int]) -> None:
        """Take the number of jobs of each rule."""
        self.expected = {rule: count for rule, count in jobs.items() if rule in COUNTED}

    def start(self, job: int, rule: str, wildcards: Mapping[str, str]) -> str:
        """Return the line for a job that starts; empty if its rule only names targets."""
        if rule not in COUNTED:
            return ""
        title = " ".join([rule, *([wildcards["name"]] if "name" in wildcards else [])])
        title += f" seed {wildcards['seed']}" if "seed" in wildcards else ""
        self.running[job] = (rule, title, self.clock())
        return f"{_now()}  start  {title}"

    def finish(self, job: int) -> str:
        """Return the line for a job that is done."""
        if job not in self.running:
            return ""
        rule, title, started = self.running.pop(job)
        took = self.clock() - started
        self.seconds[rule].append(took)
        self.done += 1
        total = max(self.done, sum(self.expected.values()))
        left = f", about {duration(self.remaining_seconds())} left" if self.done < total else ""
        return f"{_now()}  done   {title} in {duration(took)}  [{self.done} of {total}{left}]"

    def fail(self, job: int, reason: str) -> str:
        """Return the line for a job that failed."""
        _, title, _ = self.running.pop(job, ("", "a job", 0.0))
        return f"{_now()}  FAILED {title}: {reason}"

    def remaining_seconds(self) -> float:
        """Predict from the mean time of each rule so far, with the work spread over all cores."""
        every = [seconds for values in self.seconds.values() for seconds in values]
        overall = sum(every) / len(every) if every else 0.0
        work = 0.0
        for rule, count in self.expected.items():
            seen = self.seconds[rule]
            work += max(0, count - len(seen)) * (sum(seen) / len(seen) if seen else overall)
        work -= sum(self.clock() - started for _, _, started in self.running.values())
        return max(0.0, work) / self.cores


def _now() -> str:
    return time.strftime("%H:%M:%S")
