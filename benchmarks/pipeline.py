"""Wall time of `snakemake` for a study, against rivals that do the same training.

Usage: python benchmarks/pipeline.py [rounds] [cores]; writes benchmarks/results/pipeline.csv.

Rivals, which take turns: (a) one process that trains and evaluates every run of the default study
in a loop, written by hand; (b) the same with a pool of processes on all cores, each run as soon as
what it starts from is there; (c) `hydra_study/`, Lightning under Hydra's multirun with the joblib
launcher, pretrainings first, where Hydra is installed. (a) and (b) keep weights in memory and write
nothing: no checkpoints, no records, no history, no report; (c) leaves configurations, histories,
best checkpoints and metrics. The accuracies have to be those of the study.
"""

import contextlib
import copy
import csv
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT / "src"))

import written  # noqa: E402
import yaml  # noqa: E402

from assay.study import loading  # noqa: E402
from assay.study.plan import Plan, Run  # noqa: E402

PARTS = ("Snakefile", "config.yaml", "environment.yml", "workflow", "profiles", "src")
HYDRA = ("hydra-core", "hydra-joblib-launcher", "joblib")
TOLERANCE = 0.02  # of the mean accuracy: the rivals draw other random changes of images


def loop(cores: int) -> dict[str, float]:
    """All runs, in this process or in a pool; returns the accuracy of each evaluation."""
    plan = Plan(loading.read(PROJECT / "config.yaml", {"device": "cpu"}))
    runs = [run for stage in ("pretrain", "finetune") for run in plan.runs if run.stage == stage]
    accuracy: dict[str, float] = {}
    if cores == 1:
        weights: dict[str, Any] = {"": None}
        for run in runs:
            weights[run.folder], found = _one(run, weights[_start(run)])
            accuracy |= found
        return accuracy
    with ProcessPoolExecutor(cores, get_context("spawn")) as pool:
        jobs = {pool.submit(_one, run, None): run for run in runs if not _start(run)}
        while jobs:
            for done in wait(jobs, return_when=FIRST_COMPLETED).done:
                parent = jobs.pop(done)
                best, found = done.result()
                accuracy |= found
                children = [run for run in runs if _start(run) == parent.folder]
                jobs |= {pool.submit(_one, run, best): run for run in children}
    return accuracy


def _start(run: Run) -> str:
    return run.parents["weights"].folder if "weights" in run.parents else ""


def _one(run: Run, started: Any) -> tuple[Any, dict[str, float]]:
    """Train by hand, keep the best validation's weights, and evaluate those."""
    import torch
    from rivals import cosine

    from assay import finetune
    from assay.datasets import digits
    from assay.training import fit
    from assay.training.batches import Batches, SequentialBatches

    torch.set_num_threads(1)
    rule, seed = run.settings, run.seed
    tables = digits.prepare()
    data = {s: {k: torch.tensor(v) for k, v in f.items()} for s, f in tables.items()}
    module = fit.build(rule["model"], rule["objective"], digits.INFO, seed)
    if started:
        kept = {k: v for k, v in started.items() if k.startswith("backbone.")}
        module.load_state_dict(kept, strict=False)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name.split(".")[0] not in rule.get("frozen", []))
    train = data["train"]
    if rule.get("labels_per_class", "all") != "all":
        rows = finetune.few_shot_rows(train["label"], rule["labels_per_class"], seed)
        train = {name: tensor[rows] for name, tensor in train.items()}
    rate = rule["learning_rate"]
    rates = rate if isinstance(rate, dict) else {"backbone": rate, "head": rate}
    groups: dict[str, list[Any]] = {"backbone": [], "head": []}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            groups["backbone" if name.startswith("backbone.") else "head"].append(parameter)
    optimizer = torch.optim.AdamW(
        [{"params": g, "lr": rates[n]} for n, g in groups.items() if g],
        weight_decay=rule["weight_decay"], fused=True,
    )  # fmt: skip
    bases = [group["lr"] for group in optimizer.param_groups]
    batches = Batches(train, rule["batch_size"], rule["validate_every_steps"], seed)
    logged: dict[str, float] = {}
    module.log = lambda name, value, **_: logged.update({name: float(value)})
    module.log_dict = lambda values, **_: logged.update({k: float(v) for k, v in values.items()})
    best, best_value = None, -math.inf
    sign = 1 if module.MODE == "max" else -1
    step = 0
    for _ in range(rule["steps"] // rule["validate_every_steps"]):
        module.train()
        for part in rule.get("frozen", []):
            module.get_submodule(part).eval()
        for batch in batches:
            factor = cosine(step, rule["steps"], rule["warmup_steps"])
            for group, base in zip(optimizer.param_groups, bases, strict=True):
                group["lr"] = base * factor
            optimizer.zero_grad()
            module.training_step(batch, step).backward()
            optimizer.step()
            step += 1
        module.eval()
        with torch.no_grad():
            for index, batch in enumerate(SequentialBatches(data["validation"], 1024)):
                module.validation_step(batch, index)
        if best is None or sign * logged[module.MONITOR] > best_value:
            best, best_value = copy.deepcopy(module.state_dict()), sign * logged[module.MONITOR]
    if run.stage == "pretrain":
        return best, {}
    module.load_state_dict(best)
    with torch.no_grad():
        test = data["test"]
        right = module(test["image"]).argmax(1) == test["label"]
    return None, {f"{run.name}/seed{seed}": float(right.float().mean())}


def by_hand(cores: int) -> tuple[float, float]:
    """A process of its own. Returns its wall seconds and the mean accuracy."""
    begun = time.perf_counter()
    printed = quietly([sys.executable, __file__, "loop", str(cores)], PROJECT)
    return time.perf_counter() - begun, statistics.mean(json.loads(printed).values())


def snakemake(cores: int) -> tuple[float, float]:
    """The workflow in an empty folder. Returns its wall seconds and the mean accuracy."""
    with tempfile.TemporaryDirectory() as name:
        for part in PARTS:
            source = PROJECT / part
            copied = shutil.copytree if source.is_dir() else shutil.copy
            copied(source, Path(name, part))
        command = ["snakemake", "--cores", str(cores), "--config", "device=cpu"]
        begun = time.perf_counter()
        quietly(command, Path(name))
        seconds = time.perf_counter() - begun
        with Path(name, "reports/digits/results.csv").open() as file:
            found = [float(row["accuracy"]) for row in csv.DictReader(file)]
    return seconds, statistics.mean(found)


def hydra(cores: int) -> tuple[float, float]:
    """Two multiruns in an empty folder. Returns their wall seconds and the mean accuracy."""
    chosen = loading.read(PROJECT / "config.yaml")
    command = [sys.executable, str(PROJECT / "benchmarks/hydra_study/train.py")]
    command += ["--config-dir", "study", "--multirun", "study.device=cpu"]
    command += [f"hydra.launcher.n_jobs={cores}", f"seed={','.join(map(str, chosen.seeds))}"]
    stages = {"pretrain": chosen.pretrain, "finetune": chosen.experiments}
    with tempfile.TemporaryDirectory() as name:
        Path(name, "study").mkdir()
        Path(name, "study", "config.yaml").write_text(yaml.safe_dump(chosen.to_dict()))
        begun = time.perf_counter()
        for stage, runs in stages.items():
            sweep = [*command, f"stage={stage}", f"run={','.join(runs)}"]
            quietly(sweep, Path(name))
        seconds = time.perf_counter() - begun
        files = Path(name, "multirun/finetune").glob("*/*/metrics.json")
        found = [json.loads(file.read_text())["accuracy"] for file in files]
    return seconds, statistics.mean(found)


def quietly(command: list[str], folder: Path) -> str:
    """What a command prints; ends this process with its words where it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nends with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Package -> version, of those that are installed."""
    found = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def main(rounds: int, cores: int) -> None:
    """Take turns, check the accuracies, and print medians."""
    variants: dict[str, Callable[[], tuple[float, float]]] = {
        "Assay": lambda: snakemake(cores),
        "by hand, one process": lambda: by_hand(1),
        f"by hand, {cores} processes": lambda: by_hand(cores),
    }
    installed = versions(("torch", "pytorch-lightning", "snakemake", *HYDRA))
    print(", ".join(f"{name} {version}" for name, version in installed.items()))
    if installed.keys() >= set(HYDRA):
        variants[f"Hydra multirun, {cores} processes"] = lambda: hydra(cores)
    else:
        print("Hydra is not measured; `pip install hydra-core hydra-joblib-launcher` allows it")
    found: list[dict[str, float]] = []
    for _ in range(rounds):
        taken = {name: take() for name, take in variants.items()}
        means = [accuracy for _, accuracy in taken.values()]
        assert max(means) - min(means) < TOLERANCE, f"the rivals reach other accuracies: {taken}"
        found.append({name: seconds for name, (seconds, _) in taken.items()})
    rows = []
    for name in variants:
        ratios = [one["Assay"] / one[name] for one in found]
        middle = statistics.median(one[name] for one in found)
        rates = [one["by hand, one process"] / one[name] for one in found]
        rows.append(("default study", name, middle, 1 / middle, statistics.median(rates)))
        times = statistics.median(ratios)
        print(f"{name:28} {middle:7.1f} s   Assay takes {times:.2f} times as long")
    written.table("pipeline", ["task", "variant", "seconds", "rate", "ratio"], rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["loop"]:
        print(json.dumps(loop(int(sys.argv[2]))))
    else:
        given = [int(word) for word in sys.argv[1:]]
        main(*(given + [3, os.cpu_count() or 1][len(given) :]))
