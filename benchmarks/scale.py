"""Time and memory of planning, of having nothing to do, and of a report, for 100 to 10,000 runs.

Usage: python benchmarks/scale.py [sizes]; writes benchmarks/results/scale.csv and scale.svg.

The rivals are Snakemake itself, in the same run: with as many jobs of a file each, and with as many
jobs that read, leave and log as many files as ours do, without any code of ours. All their jobs do
nothing. Of our runs the first seed's are made for real; the others are copies of them under their
own digests.
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
ALIKE = """
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
LEFT = {
    "data": ("train", "validation", "test", "record.json"),
    "finetune": ("record.json", "weights", "history"),
    "evaluate": ("record.json", "predictions"),
}
PARTS = ("Snakefile", "environment.yml", "workflow", "profiles", "src")
SIZES = (100, 1000, 10000)
FLOOR = "Snakemake, one file a job"


def measured(folder: Path, repeats: int, *options: str) -> tuple[float, float]:
    """Median wall seconds of snakemake, and the peak memory of its largest process in bytes."""
    taken, peaks = zip(*(_once(folder, *options) for _ in range(repeats)), strict=True)
    return statistics.median(taken), max(peaks)


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
    plan = Plan(loading.read(folder / "config.yaml"))
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
    kept: dict[str, Any] = {k: v for k, v in record.items() if k not in ("checksum", "files")}
    records.write(
        folder / run.folder, kept | {"seed": run.seed, "digest": run.digest, "parents": parents}
    )


def ours(folder: Path, size: int, repeats: int) -> dict[str, tuple[float, float]]:
    """Assay, for so many runs."""
    checkout(folder, size // 2)
    plan = measured(folder, repeats, "-n")
    fill(folder)
    report = measured(folder, 1)
    return {"plan": plan, "report": report, "nothing to do": measured(folder, repeats)}


def floor(folder: Path, size: int, repeats: int, snakefile: str) -> dict[str, tuple[float, float]]:
    """Snakemake with so many jobs that do nothing."""
    folder.mkdir(parents=True)
    (folder / "Snakefile").write_text(snakefile.format(half=size // 2))
    plan = measured(folder, repeats, "-n")
    places = [
        f"{stage}/{number}" for stage in ("finetune", "evaluate") for number in range(size // 2)
    ]
    for place in ("data", *places):
        path = folder / "r" / place
        path.mkdir(parents=True)
        for name in LEFT[place.split("/")[0]]:
            (path / name).touch()
    (folder / "r" / "page").touch()
    return {"plan": plan, "nothing to do": measured(folder, repeats)}


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Seconds over runs, both on logarithmic scales."""
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
    """Measure each size, and print a table."""
    rows: list[dict[str, Any]] = []
    print(f"{'runs':>6} {'task':14} {'variant':28} {'seconds':>8} {'ratio':>6} {'memory':>9}")
    for size in sizes:
        repeats = max(1, min(5, 3000 // size))
        with tempfile.TemporaryDirectory() as name:
            found = {
                FLOOR: floor(Path(name, "floor"), size, repeats, EMPTY),
                "Snakemake, as many files": floor(Path(name, "alike"), size, repeats, ALIKE),
                "Assay": ours(Path(name, "ours"), size, repeats),
            }
        for task in ("plan", "nothing to do", "report"):
            for variant, tasks in found.items():
                if task in tasks:
                    seconds, memory = tasks[task]
                    base = found[FLOOR].get(task, (float("nan"), 0))[0]
                    rows.append({"task": task, "variant": variant, "runs": size,
                                 "seconds": seconds, "rate": size / seconds,
                                 "ratio": base / seconds, "memory_bytes": int(memory)})  # fmt: skip
                    print(f"{size:6} {task:14} {variant:28} {seconds:8.2f} {base / seconds:6.2f} "
                          f"{memory / 1e6:6.0f} MB", flush=True)  # fmt: skip
    written.table("scale", list(rows[0]), [list(row.values()) for row in rows])
    draw(rows, written.RESULTS / "scale.svg")


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or list(SIZES))
