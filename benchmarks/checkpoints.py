"""The cost of checkpoints, in the default study and with larger networks.

Usage: python benchmarks/checkpoints.py [rounds]; writes benchmarks/results/checkpoints.csv.

Each training runs twice per round: with the checkpoints of config.yaml, and with one after each
step, the largest number possible. The share is relative to the time of training and validation; a
ratio is the rate divided by that of a training without checkpoints.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT / "src"))

import written  # noqa: E402

from assay.runs import identity  # noqa: E402
from assay.runs.ledger import training_seconds  # noqa: E402
from assay.study import loading  # noqa: E402
from assay.study.plan import Plan, Run  # noqa: E402

EACH_STEP = {"checkpoint_seconds": 0}


def train(run: Run, folder: Path, execution: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Train a run in a folder, and return its record."""
    command = [sys.executable, "-m", f"assay.{run.stage}", "--output", str(folder)]
    command += ["--settings", identity.canonical(run.settings | changes)]
    command += ["--execution", identity.canonical(execution)]
    command += [] if run.seed is None else ["--seed", str(run.seed)]
    for role, parent in run.parents.items():
        command += [f"--{role}", parent.folder]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "src")}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return json.loads((folder / "record.json").read_text())


def share(record: dict[str, Any]) -> float:
    """Return the time of the checkpoints, divided by that of training and validation."""
    seconds = record["seconds"]
    return seconds["checkpoint"] / (training_seconds(seconds, "steps") + seconds["validate"])


def main(rounds: int) -> None:
    """Train the parents, alternate, and print medians."""
    plan = Plan(loading.read(PROJECT / "config.yaml", {"device": "cpu"}))
    found = [run for run in plan.runs if run.seed in (None, plan.study.seeds[0])]
    wide = {"model": {"name": "cnn", "width": 128, "features": 512}}
    rows = []
    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        prepare = [sys.executable, "-m", "assay.prepare", "--settings", found[0].settings_json]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT / "src")}
        subprocess.run(
            [*prepare, "--output", found[0].folder],
            check=True,
            capture_output=True,
            env=environment,
        )
        pretrained = next(run for run in found if run.stage == "pretrain")
        train(pretrained, Path(pretrained.folder), plan.execution)
        cases = [(run.title, run, {}) for run in found if run.stage in ("pretrain", "finetune")]
        scratch = next(run for run in found if run.title.startswith("finetune/scratch_all"))
        cases.append((f"{scratch.title}, width 128", scratch, wide))
        for title, run, changes in cases:
            for variant, execution in (("config.yaml", plan.execution), ("each step", EACH_STEP)):
                records = [
                    train(
                        run,
                        Path("again", variant, str(number), run.name, title),
                        execution,
                        **changes,
                    )
                    for number in range(rounds)
                ]
                shares = [share(record) for record in records]
                trained = statistics.median(
                    training_seconds(record["seconds"], "steps") for record in records
                )
                rows.append((title, variant, trained, statistics.median(shares), max(shares)))
    columns = ["task", "variant", "rate", "ratio", "train_seconds", "share_median", "share_largest"]
    rated = [(*row[:2], 1 / (row[2] * (1 + row[3])), 1 / (1 + row[3]), *row[2:]) for row in rows]
    written.table("checkpoints", columns, rated)
    print(f"{'task':42} {'checkpoints':12} {'train':>8} {'share':>8} {'largest':>8}")
    for title, variant, trained, median, largest in rows:
        print(f"{title:42} {variant:12} {trained:6.2f} s {median:8.2%} {largest:8.2%}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
