"""What a running workflow tells: what runs, how much is done, and how long it will still take."""

import time
from collections import defaultdict
from collections.abc import Sequence

from assay.runs.units import duration


class Progress:
    """Counts jobs and predicts the time that is left from those that are done."""

    def __init__(self) -> None:
        self.expected: dict[str, int] = {}
        self.cores = 1
        self.running: dict[int, tuple[str, str, float]] = {}
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.done = 0

    def expect(self, jobs: dict[str, int], cores: int | None) -> None:
        """Take note of how many jobs of each stage there are; `total` and `all` are no stages."""
        self.expected = {k: v for k, v in jobs.items() if k not in ("total", "all")}
        self.cores = cores or 1

    def start(self, job: int, stage: str, words: Sequence[str]) -> str:
        """A job starts. Returns the line to show."""
        title = " ".join(words) if len(words) < 3 else f"{words[0]} {words[1]} seed {words[2]}"
        title = " ".join(words[:2]) if stage == "prepare" else title  # a data set has no seed
        title = stage if stage in ("report", "all") else title
        self.running[job] = (stage, title, time.monotonic())
        return "" if stage == "all" else f"{_now()}  start  {title}"

    def finish(self, job: int) -> str:
        """A job is done. Returns the line to show."""
        stage, title, started = self.running.pop(job, ("", "", time.monotonic()))
        if stage in ("", "all"):
            return ""
        took = time.monotonic() - started
        self.seconds[stage].append(took)
        self.done += 1
        total = max(self.done, sum(self.expected.values()))
        left = f", about {duration(self.remaining_seconds())} left" if self.done < total else ""
        return f"{_now()}  done   {title} in {duration(took)}  [{self.done} of {total}{left}]"

    def fail(self, job: int, reason: str) -> str:
        """A job has failed. Returns the line to show."""
        _, title, _ = self.running.pop(job, ("", "a job", 0.0))
        return f"{_now()}  FAILED {title}: {reason}"

    def remaining_seconds(self) -> float:
        """The work that is left, at the mean of what was seen, spread over the cores."""
        every = [value for values in self.seconds.values() for value in values]
        overall = sum(every) / len(every) if every else 0.0
        work = 0.0
        for stage, count in self.expected.items():
            seen = self.seconds[stage]
            mean = sum(seen) / len(seen) if seen else overall
            work += max(0, count - len(seen)) * mean
        now = time.monotonic()
        work -= sum(now - started for _, _, started in self.running.values())
        return max(0.0, work) / self.cores


def _now() -> str:
    return time.strftime("%H:%M:%S")
