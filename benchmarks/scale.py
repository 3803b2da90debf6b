"""Time and memory of planning, of having nothing to do, and of a report, for 100 to 10,000 runs.

Usage: python benchmarks/scale.py [sizes]; writes benchmarks/results/scale.csv and scale.svg.

The rival is Snakemake itself with as many jobs that do nothing, in the same run. Of our runs a few
are made for real; the others are copies of them under their own digests.
"""

import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT / "src"))

from assay import records, study  # noqa: E402
from assay.plan import Plan, Run  # noqa: E402

EMPTY = """
rule all:
    input: expand("r/{{stage}}/{{i}}/record.json", stage=["finetune", "evaluate"], i=range({half}))
rule finetune:
    output: "r/finetune/{{i}}/record.json"
    shell: "true > {{output}}"
rule evaluate:
    input: "r/finetune/{{i}}/record.json"
    output: "r/evaluate/{{i}}/record.json"
    shell: "true > {{output}}"
"""
PARTS = ("Snakefile", "environment.yml", "workflow", "profiles", "src")
SIZES = (100, 1000, 10000)


def measured(folder: Path, *command: str) -> tuple[float, float]:
    """Wall seconds of a command, and the peak memory of its largest process in bytes."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} in {folder} ends with {process.returncode}")
    return time.perf_counter() - begun, usage.ru_maxrss * 1024


def checkout(folder: Path, seeds: int) -> None:
    """The project with a study of one experiment: two runs per seed."""
    for part in PARTS:
        source = PROJECT / part
        copied = shutil.copytree if source.is_dir() else shutil.copy
        folder.mkdir(parents=True, exist_ok=True)
        copied(source, folder / part)
    found = yaml.safe_load((PROJECT / "config.yaml").read_text())
    kept = {"scratch_few": found["experiments"]["scratch_few"]}
    found |= {"seeds": list(range(seeds)), "experiments": kept, "device": "cpu"}
    found["finetune"] |= {"steps": 4, "validate_every_steps": 2, "warmup_steps": 1}
    found["report"]["comparisons"] = {}
    (folder / "config.yaml").write_text(yaml.safe_dump(found, sort_keys=False))


def fill(folder: Path) -> None:
    """Make the first seed's runs, and copy them for all others."""
    first = ["prepare/digits", "evaluate/scratch_few/seed0"]
    subprocess.run(["snakemake", "--cores", "2", *first], cwd=folder, check=True,
                   capture_output=True)  # fmt: skip
    plan = Plan(study.read(folder / "config.yaml"))
    made = {run.stage: run for run in plan.runs if run.seed in (None, 0)}
    for run in plan.runs:
        if run.seed:
            _copy(folder, made[run.stage], run)


def _copy(folder: Path, source: Run, run: Run) -> None:
    record = records.read(folder / source.folder)
    (folder / run.folder).mkdir(parents=True)
    for name in record["files"]:
        os.link(folder / source.folder / name, folder / run.folder / name)
    parents = {r: {"folder": p.folder, "digest": p.digest} for r, p in run.parents.items()}
    kept: dict[str, Any] = {k: v for k, v in record.items() if k not in ("seal", "files")}
    records.write(
        folder / run.folder, kept | {"seed": run.seed, "digest": run.digest, "parents": parents}
    )


def ours(folder: Path, size: int) -> dict[str, tuple[float, float]]:
    """Assay, for so many runs."""
    checkout(folder, size // 2)
    plan = measured(folder, "snakemake", "-n", "--cores", "1")
    fill(folder)
    report = measured(folder, "snakemake", "--cores", "1")
    return {
        "plan": plan,
        "report": report,
        "nothing to do": measured(folder, "snakemake", "--cores", "1"),
    }


def floor(folder: Path, size: int) -> dict[str, tuple[float, float]]:
    """Snakemake with so many empty jobs."""
    folder.mkdir(parents=True)
    (folder / "Snakefile").write_text(EMPTY.format(half=size // 2))
    plan = measured(folder, "snakemake", "-n", "--cores", "1")
    for stage in ("finetune", "evaluate"):
        for number in range(size // 2):
            path = folder / f"r/{stage}/{number}/record.json"
            path.parent.mkdir(parents=True)
            path.touch()
    return {"plan": plan, "nothing to do": measured(folder, "snakemake", "--cores", "1")}


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Seconds over runs, both on logarithmic scales."""
    import pandas as pd
    import seaborn as sns

    table = pd.DataFrame(rows)
    axes = sns.lineplot(table, x="runs", y="seconds", hue="task", style="variant", marker="o")
    axes.set(xscale="log", yscale="log", xlabel="runs", ylabel="seconds")
    axes.figure.savefig(path, bbox_inches="tight", metadata={"Date": None})


def main(sizes: list[int]) -> None:
    """Measure each size, and print a table."""
    rows: list[dict[str, Any]] = []
    print(f"{'runs':>6} {'task':16} {'variant':10} {'seconds':>8} {'ratio':>6} {'memory':>9}")
    for size in sizes:
        with tempfile.TemporaryDirectory() as name:
            found = {
                "Snakemake": floor(Path(name, "floor"), size),
                "Assay": ours(Path(name, "ours"), size),
            }
        for task in ("plan", "nothing to do", "report"):
            for variant, tasks in found.items():
                if task in tasks:
                    seconds, memory = tasks[task]
                    base = found["Snakemake"].get(task, (float("nan"), 0))[0]
                    rows.append({"runs": size, "task": task, "variant": variant,
                                 "seconds": seconds, "ratio": seconds / base,
                                 "memory_bytes": int(memory)})  # fmt: skip
                    print(f"{size:6} {task:16} {variant:10} {seconds:8.2f} {seconds / base:6.2f} "
                          f"{memory / 1e6:6.0f} MB", flush=True)  # fmt: skip
    results = PROJECT / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    with (results / "scale.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    draw(rows, results / "scale.svg")


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or list(SIZES))
