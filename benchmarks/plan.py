"""Time to plan 1,000 runs, against Snakemake's own time for 1,000 empty jobs.

Usage: python benchmarks/plan.py [rounds]; writes benchmarks/results/plan.csv.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import written
import yaml

PROJECT = Path(__file__).resolve().parent.parent
EMPTY = """
rule all:
    input: expand("r/{stage}/{i}/record.json", stage=["finetune", "evaluate"], i=range(500))
rule finetune:
    output: "r/finetune/{i}/record.json"
    shell: "true > {output}"
rule evaluate:
    input: "r/finetune/{i}/record.json"
    output: "r/evaluate/{i}/record.json"
    shell: "true > {output}"
"""


def study_of_1000_runs() -> dict:
    """One experiment with 500 seeds: 500 fine-tunings and 500 evaluations."""
    study = yaml.safe_load((PROJECT / "config.yaml").read_text())
    kept = {"scratch_few": study["experiments"]["scratch_few"]}
    study |= {"study": "thousand", "seeds": list(range(500)), "experiments": kept}
    study["report"]["comparisons"] = {}
    return study


def seconds(*command: str, folder: Path) -> float:
    """Wall seconds of a command."""
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - start


def main(rounds: int) -> None:
    """Take turns, and print medians."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "Snakefile").write_text(EMPTY)
        (folder / "study.yaml").write_text(yaml.safe_dump(study_of_1000_runs()))
        ours = ["--snakefile", str(PROJECT / "Snakefile"), "--configfile", "study.yaml"]
        pairs = [
            (
                seconds("snakemake", "-n", "--cores", "1", folder=folder),
                seconds("snakemake", "-n", "--cores", "1", *ours, folder=folder),
            )
            for _ in range(rounds)
        ]
    floor, time_ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(ours / empty for empty, ours in pairs)
    rows = [("plan", "1,000 empty jobs", floor, 1.0), ("plan", "1,000 runs", time_ours, ratio)]
    written.table("plan", ["task", "variant", "seconds", "ratio"], rows)
    for _, variant, took, relative in rows:
        print(f"{variant:20} {took:6.2f} s  {relative:.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
