"""Seconds from a job's start to its first training step, forked and not, against bare imports.

Usage: python benchmarks/start.py [rounds]; writes benchmarks/results/start.csv.

The job is a fine-tuning of the default study. The variants alternate; a ratio is the median over
rounds of the time divided by that of `import pytorch_lightning` in the same round.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT / "src"))

import written  # noqa: E402

from assay.jobs import forkserver, launch  # noqa: E402
from assay.runs import supervision  # noqa: E402
from assay.study import loading  # noqa: E402
from assay.study.plan import Plan, Run  # noqa: E402

BEFORE = ("import", "data", "build")  # phases that come before the first step


def imported(name: str) -> float:
    """Return the seconds of a Python process that imports a package."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {name}"], check=True)
    return time.perf_counter() - begun


def job(run: Run, output: str, data: str, forked: bool) -> float:
    """Return the seconds from the start of a job to its first step."""
    command = [
        sys.executable,
        "-m",
        "assay.jobs.launch",
        run.stage,
        "--settings",
        run.settings_json,
    ]
    command += ["--seed", str(run.seed), "--data", data, "--output", output]
    environment = {k: v for k, v in os.environ.items() if forked or k != launch.FORK_SERVER}
    begun = time.perf_counter()
    subprocess.run(command, check=True, env=environment, capture_output=True)
    wall = time.perf_counter() - begun
    seconds = json.loads(Path(output, "record.json").read_text())["seconds"]
    return wall - (seconds["wall"] - sum(seconds[phase] for phase in BEFORE))


def main(rounds: int) -> None:
    """Prepare the data, start a fork server, alternate, and print medians."""
    os.environ |= {"PYTHONPATH": str(PROJECT / "src"), "OMP_NUM_THREADS": "1"}
    os.environ[supervision.PARENT] = supervision.mark(os.getpid())
    runs = Plan(loading.read(PROJECT / "config.yaml", {"device": "cpu"})).runs
    prepare, finetune = (next(r for r in runs if r.stage == s) for s in ("prepare", "finetune"))
    with tempfile.TemporaryDirectory() as folder:
        data = f"{folder}/data"
        command = [sys.executable, "-m", "assay.prepare", "--settings", prepare.settings_json]
        subprocess.run([*command, "--output", data], check=True, capture_output=True)
        os.environ[launch.FORK_SERVER] = forkserver.start()
        job(finetune, f"{folder}/first/seed0", data, forked=True)
        variants: dict[str, Callable[[int], float]] = {
            "import pytorch_lightning": lambda n: imported("pytorch_lightning"),
            "import torch": lambda n: imported("torch"),
            "a new process": lambda n: job(finetune, f"{folder}/new{n}/seed0", data, False),
            "a forked job": lambda n: job(finetune, f"{folder}/forked{n}/seed0", data, True),
        }
        found = [{name: take(n) for name, take in variants.items()} for n in range(rounds)]
    rows = []
    for name in variants:
        times = statistics.median(one[name] / one["import pytorch_lightning"] for one in found)
        seconds = statistics.median(one[name] for one in found)
        rows.append(("start", name, seconds, 1 / seconds, 1 / times))
        print(f"{name:26} {seconds:6.2f} s, {times:.2f} times as long as import pytorch_lightning")
    written.table("start", ["task", "variant", "seconds", "rate", "ratio"], rows)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
