"""How well the jobs of two snakemakes fill four GPUs, and whether a GPU is ever held twice.

Usage: python benchmarks/leases.py [jobs] [kills]; writes benchmarks/results/leases.csv. Needs a C
compiler: the GPUs are simulated, and jobs sleep on them.

Half of the jobs belong to each snakemake. Each leases one or two GPUs for some seconds, and writes
when it held which. The lower bound is the total of GPU seconds, divided by four. With `kills`, that
number of jobs is killed at random and repeated, and the time is not compared.
"""

import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import written

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT / "tests"))

from support import fake_nvml  # noqa: E402

GPUS = 4
LONGEST_SECONDS = 4.0
SNAKEFILE = """
import json
JOBS = json.load(open("jobs.json"))
rule all:
    input: expand("{i}.done", i=range(len(JOBS)))
rule job:
    output: "{i}.done"
    retries: 100
    resources: gpu=lambda wildcards: JOBS[int(wildcards.i)][0]
    params: job=lambda wildcards: JOBS[int(wildcards.i)]
    shell: "exec python job.py {params.job} {output}"
"""
JOB = """
import os, sys, time
from assay.devices import leases
number, seconds, output = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
held = leases.acquire_gpus(number, 1, lambda words: None, lambda: None)
def note(what):
    with open("../held.txt", "a") as file:
        file.writelines(f"{time.monotonic()} {what} {uuid} {os.getpid()}\\n" for uuid in held)
note("takes")
time.sleep(seconds)
note("leaves")
open(output, "w").close()
"""


def begin(
    folder: Path, jobs: list[tuple[int, float]], environment: dict[str, str]
) -> subprocess.Popen:
    """Start a snakemake with some jobs."""
    folder.mkdir()
    (folder / "Snakefile").write_text(SNAKEFILE)
    (folder / "job.py").write_text(JOB)
    (folder / "jobs.json").write_text(str([list(job) for job in jobs]))
    command = [
        "snakemake",
        "--cores",
        str(2 * GPUS),
        "--resources",
        f"gpu={GPUS}",
        "--quiet",
        "all",
    ]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL)


def kill(workflows: list[subprocess.Popen], kills: int, draw: random.Random) -> None:
    """Kill a number of jobs at random."""
    done = 0
    while done < kills and any(workflow.poll() is None for workflow in workflows):
        time.sleep(draw.uniform(0, 0.4))
        below = psutil.Process().children(recursive=True)
        with contextlib.suppress(psutil.Error, IndexError):  # it has just ended, or none is running
            draw.choice([each for each in below if "job.py" in each.cmdline()]).kill()
            done += 1


def held_twice(lines: list[str]) -> Iterator[str]:
    """Yield the GPUs that a job leased while another one held them that was not killed."""
    ended = {line.split()[3] for line in lines if " leaves " in line}
    holders: dict[str, str] = {}
    for line in sorted(lines, key=lambda line: float(line.split()[0])):
        _, what, uuid, pid = line.split()
        if what == "leaves":
            holders.pop(uuid, None)
        else:
            if holders.get(uuid) in ended:
                yield f"{uuid} was taken by {pid} while {holders[uuid]} had it"
            holders[uuid] = pid


def main(number: int, kills: int) -> None:
    """Run both snakemakes, and compare their time with the lower bound."""
    draw = random.Random(0)
    jobs = [(draw.choice((1, 2)), draw.uniform(1, LONGEST_SECONDS)) for _ in range(number)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fake_nvml.build(folder)
        gpus = fake_nvml.FakeGpus(folder, folder / "gpus.txt", count=GPUS)
        environment = {**os.environ, **gpus.environment, "PYTHONPATH": str(PROJECT / "src")}
        environment["ASSAY_LEASES"] = str(folder / "leases")
        environment.pop("CUDA_VISIBLE_DEVICES", None)
        workflows = [begin(folder / str(half), jobs[half::2], environment) for half in (0, 1)]
        kill(workflows, kills, draw)
        if any(workflow.wait() for workflow in workflows):
            sys.exit("a snakemake failed")
        lines = (folder / "held.txt").read_text().splitlines()
    if errors := list(held_twice(lines)):
        sys.exit("\n".join(errors))
    times = [float(line.split()[0]) for line in lines]
    taken, least = max(times) - min(times), sum(each * span for each, span in jobs) / GPUS
    print(f"{number} jobs on {GPUS} GPUs, {kills} kills: no GPU was held twice")
    print(f"{taken:.1f} s from the first lease to the last; {least:.1f} s is the lower bound")
    if not kills:
        rows = [("lower bound", number / least, 1.0), ("Assay", number / taken, least / taken)]
        written.table("leases", ["task", "variant", "rate", "ratio"],
                      [("100 jobs of 1 and 2 GPUs", *row) for row in rows])  # fmt: skip
        print(f"leases fill the GPUs at {least / taken:.2f} of the lower bound's rate")


if __name__ == "__main__":
    words = [int(word) for word in sys.argv[1:]]
    main(*(words + [100, 0][len(words) :]))
