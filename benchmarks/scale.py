"""Time and memory of a plan, of a workflow with nothing to do, and of a report, by number of runs.

Usage: python benchmarks/scale.py [sizes]; writes benchmarks/results/scale.csv and scale.svg.

The baselines are Snakemake itself, with as many jobs of one file each, and with as many jobs that
read, write and log as many files as those of Assay. Their jobs do nothing. The runs of the first
seed are real; those of the other seeds are copies under their own hashes.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import written
import yaml

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT / "src"))

from assay.runs import records  # noqa: E402
from assay.study import loading  # noqa: E402
from assay.study.plan import Plan, Run  # noqa: E402

ONE_FILE = """
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
SAME_FILES = """
rule all:
    input: "r/page"
rule prepare:
    output: "r/data/train", "r/data/validation", "r/data/test", "r/data/record.json"
    shell: "touch {{output}}"
rule finetune:
    input: "r/data/train", "r/data/validation"
    output: [f"r/finetune/{{{{i}}}}/{{name}}" for name in ("record.json", "weights", "history")]
    log: "r/finetune/{{i}}/log"
    benchmark: "r/finetune/{{i}}/benchmark"
    resources: mem_mb=4000, runtime=60
    params: settings=lambda wildcards: wildcards.i
    shell: "touch {{output}} # {{params.settings}}"
rule evaluate:
    input: "r/data/test", "r/finetune/{{i}}/weights"
    output: [f"r/evaluate/{{{{i}}}}/{{name}}" for name in ("record.json", "predictions")]
    log: "r/evaluate/{{i}}/log"
    benchmark: "r/evaluate/{{i}}/benchmark"
    resources: mem_mb=4000, runtime=60
    params: settings=lambda wildcards: wildcards.i
    shell: "touch {{output}} # {{params.settings}}"
rule report:
    input:
        "r/data/record.json",
        expand("r/{{stage}}/{{i}}/record.json", stage=["finetune", "evaluate"], i=range({half})),
    output: "r/page"
    shell: "touch {{output}}"
"""
WRITTEN = {
    "data": ("train", "validation", "test", "record.json"),
    "finetune": ("record.json", "weights", "history"),
    "evaluate": ("record.json", "predictions"),
}
PARTS = ("Snakefile", "environment.yml", "workflow", "profiles", "src")
SIZES = (100, 1000, 10000)
FLOOR = "Snakemake, one file a job"


def measure(folder: Path, repeats: int, *options: str) -> tuple[float, float]:
    """Return the median wall seconds of snakemake and the peak bytes of its largest process."""
    seconds, peaks = zip(*(_once(folder, *options) for _ in range(repeats)), strict=True)
    return statistics.median(seconds), max(peaks)


def _once(folder: Path, *options: str) -> tuple[float, float]:
    command = ["snakemake", "--cores", "1", *options]
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
    """Copy the project with a study of one experiment: two runs per seed."""
    for part in PARTS:
        source = PROJECT / part
        copied = shutil.copytree if source.is_dir() else shutil.copy
        folder.mkdir(parents=True, exist_ok=True)
        copied(source, folder / part)
    study = yaml.safe_load((PROJECT / "config.yaml").read_text())
    experiments = {"scratch_few": study["experiments"]["scratch_few"]}
    study |= {"seeds": list(range(seeds)), "experiments": experiments, "device": "cpu"}
    study["finetune"] |= {"steps": 4, "validate_every_steps": 2, "warmup_steps": 1}
    study["report"]["comparisons"] = {}
    (folder / "config.yaml").write_text(yaml.safe_dump(study, sort_keys=False))


def fill(folder: Path) -> None:
    """Run the first seed, and copy its runs for all others."""
    first = ["prepare/digits", "evaluate/scratch_few/seed0"]
    subprocess.run(["snakemake", "--cores", "2", *first], cwd=folder, check=True,
                   capture_output=True)  # fmt: skip
    plan = Plan(loading.read(folder / "config.yaml"))
    first_seed = {run.stage: run for run in plan.runs if run.seed in (None, 0)}
    for run in plan.runs:
        if run.seed:
            _copy(folder, first_seed[run.stage], run)


def _copy(folder: Path, source: Run, run: Run) -> None:
    record = records.read(folder / source.folder)
    (folder / run.folder).mkdir(parents=True)
    for name in record["files"]:
        os.link(folder / source.folder / name, folder / run.folder / name)
    parents = {r: {"folder": p.folder, "digest": p.digest} for r, p in run.parents.items()}
    record = {k: v for k, v in record.items() if k not in ("checksum", "files")}
    records.write(
        folder / run.folder, record | {"seed": run.seed, "digest": run.digest, "parents": parents}
    )


def assay(folder: Path, size: int, repeats: int) -> dict[str, tuple[float, float]]:
    """Measure Assay with this number of runs."""
    checkout(folder, size // 2)
    plan = measure(folder, repeats, "-n")
    fill(folder)
    report = measure(folder, 1)
    return {"plan": plan, "report": report, "nothing to do": measure(folder, repeats)}


def floor(folder: Path, size: int, repeats: int, snakefile: str) -> dict[str, tuple[float, float]]:
    """Measure Snakemake with this number of jobs that do nothing."""
    folder.mkdir(parents=True)
    (folder / "Snakefile").write_text(snakefile.format(half=size // 2))
    plan = measure(folder, repeats, "-n")
    runs = [(stage, str(index)) for stage in ("finetune", "evaluate") for index in range(size // 2)]
    for stage, *index in [("data",), *runs]:
        path = Path(folder, "r", stage, *index)
        path.mkdir(parents=True)
        for name in WRITTEN[stage]:
            (path / name).touch()
    (folder / "r" / "page").touch()
    return {"plan": plan, "nothing to do": measure(folder, repeats)}


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw seconds over runs, both on logarithmic scales."""
    import pandas as pd
    import seaborn as sns
    from matplotlib.ticker import LogLocator

    table = pd.DataFrame(rows)
    axes = sns.lineplot(table, x="runs", y="seconds", hue="task", style="variant", marker="o")
    axes.set(xscale="log", yscale="log", xlabel="runs", ylabel="seconds")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    sns.move_legend(axes, "upper left", bbox_to_anchor=(1, 1), frameon=False)
    axes.figure.savefig(path, bbox_inches="tight", metadata={"Date": None})


def main(sizes: list[int]) -> None:
    """Measure each number of runs and print a table."""
    rows: list[dict[str, Any]] = []
    print(f"{'runs':>6} {'task':14} {'variant':28} {'seconds':>8} {'ratio':>6} {'memory':>9}")
    for size in sizes:
        repeats = max(1, min(5, 3000 // size))
        with tempfile.TemporaryDirectory() as name:
            variants = {
                FLOOR: floor(Path(name, "floor"), size, repeats, ONE_FILE),
                "Snakemake, as many files": floor(Path(name, "alike"), size, repeats, SAME_FILES),
                "Assay": assay(Path(name, "assay"), size, repeats),
            }
        for task in ("plan", "nothing to do", "report"):
            for variant, tasks in variants.items():
                if task in tasks:
                    seconds, memory = tasks[task]
                    base = variants[FLOOR].get(task, (float("nan"), 0))[0]
                    rows.append({"task": task, "variant": variant, "runs": size,
                                 "seconds": seconds, "rate": size / seconds,
                                 "ratio": base / seconds, "memory_bytes": int(memory)})  # fmt: skip
                    print(f"{size:6} {task:14} {variant:28} {seconds:8.2f} {base / seconds:6.2f} "
                          f"{memory / 1e6:6.0f} MB", flush=True)  # fmt: skip
    written.table("scale", list(rows[0]), [list(row.values()) for row in rows])
    draw(rows, written.RESULTS / "scale.svg")


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or list(SIZES))
