"""Steps per second of a whole machine: jobs side by side, threads per job, and how threads wait.

Usage: python benchmarks/cores.py [rounds] [seconds]; writes benchmarks/results/cores.csv.

Each job is a process with its own training loop; all start together and train for some seconds, and
their rates are summed. A ratio is relative to a hand-written loop that sets nothing: one job with
the number of threads that torch chooses. "Assay" starts jobs with the number of `threads`, and with
its environment variables, until the cores are full.
"""

import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT / "src"))

import written  # noqa: E402

from assay.devices import cpu  # noqa: E402

TASKS = ("MLP on digits", "CNN on 28x28 images", "GPT, 4 layers, width 128")
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_WAIT_POLICY")
WARM_UP_STEPS = 3


@dataclass(frozen=True)
class Variant:
    """A number of jobs with a number of threads each; with None, torch chooses the number."""

    name: str
    jobs: int
    threads: int | None
    ours: bool

    def environment(self) -> dict[str, str]:
        """Return the environment of a job: without settings of threads, or as Assay sets it."""
        found = {name: text for name, text in os.environ.items() if name not in VARIABLES}
        return found | (cpu.environment(self.threads or 1) if self.ours else {})


def variants(count: int) -> Iterator[Variant]:
    """Yield the variants that use all cores, and one that oversubscribes them."""
    yield Variant("nothing set, one job", 1, None, ours=False)
    yield Variant(f"nothing set, {count} jobs", count, None, ours=False)
    for threads in (t for t in (1, 2, 4, 8, 16, 32, 64) if count % t == 0):
        yield Variant(f"Assay, threads: {threads}", count // threads, threads, ours=True)


def work(task: str, threads: str, seconds: float) -> None:
    """Train with a hand-written loop for some seconds, and print the rate in steps per second."""
    warnings.filterwarnings("ignore")
    import steps
    import torch

    if threads != "None":
        torch.set_num_threads(int(threads))
    [chosen] = [steps.training(one) for one in steps.TASKS if one.name == task]
    model, order = chosen.module(), chosen.rows()
    optimizer = chosen.optimizer(model)

    def step(number: int) -> None:
        rows = order[number % len(order)]
        batch = {name: tensor[rows] for name, tensor in chosen.train.items()}
        optimizer.zero_grad()
        model.training_step(batch, number).backward()
        optimizer.step()

    for number in range(WARM_UP_STEPS):
        step(number)
    print("ready", flush=True)
    sys.stdin.readline()
    begun, done = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        step(done)
        done += 1
    print(done / (time.perf_counter() - begun))


def rate(task: str, variant: Variant, seconds: float) -> float:
    """Return the total steps per second of all jobs of a variant."""
    command = [sys.executable, __file__, "work", task, str(variant.threads), str(seconds)]
    jobs = [
        subprocess.Popen(command, env=variant.environment(), stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, text=True)
        for _ in range(variant.jobs)
    ]  # fmt: skip
    for job in jobs:
        assert job.stdout and job.stdout.readline() == "ready\n"
    for job in jobs:
        assert job.stdin
        job.stdin.write("go\n")
        job.stdin.flush()
    return sum(float(job.communicate()[0]) for job in jobs)


def main(rounds: int, seconds: float) -> None:
    """Alternate between the variants, and print medians."""
    count = cpu.available()
    rows = []
    print(f"{count} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'task':26} {'variant':22} {'jobs':>5} {'threads':>8} {'steps/s':>9} {'ratio':>8}")
    for task in TASKS:
        chosen = list(variants(count))
        found = [[rate(task, variant, seconds) for variant in chosen] for _ in range(rounds)]
        for place, variant in enumerate(chosen):
            middle = statistics.median(rates[place] for rates in found)
            ratio = statistics.median(rates[place] / rates[0] for rates in found)
            threads = variant.threads or count
            rows.append((task, variant.name, variant.jobs, threads, middle, ratio))
            print(f"{task:26} {variant.name:22} {variant.jobs:5} {threads:8} {middle:9.1f} "
                  f"{ratio:8.2f}", flush=True)  # fmt: skip
    written.table("cores", ["task", "variant", "jobs", "threads", "rate", "ratio"], rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        work(sys.argv[2], sys.argv[3], float(sys.argv[4]))
    else:
        given = sys.argv[1:]
        main(int(given[0]) if given else 3, float(given[1]) if len(given) > 1 else 3.0)
