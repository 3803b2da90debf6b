"""From the records of runs to the tables of a report."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from assay.reporting import comparability, costs, statistics
from assay.runs import ledger, metrics, records
from assay.runs.artifacts import HISTORY, read_history
from assay.study.plan import Plan, Run


@dataclass(frozen=True)
class Tables:
    """All that a report shows.

    Attributes:
        runs: a row per job, with its seconds by phase.
        results: a row per experiment and seed.
        summary: a row per experiment: means over the seeds that are complete.
        comparisons: a row per comparison: differences paired by seed.
        history: a row per validation of each experiment and seed.
        records: folder -> record, of the complete runs.
    """

    study: dict[str, Any]
    runs: pd.DataFrame
    results: pd.DataFrame
    summary: pd.DataFrame
    comparisons: pd.DataFrame
    history: pd.DataFrame
    records: dict[str, dict[str, Any]]

    @property
    def metric(self) -> str:
        """What the report compares, such as `accuracy`."""
        return self.study["report"]["metric"]


def collect(plan: Plan) -> Tables:
    """Read the records of a plan's runs; what is missing becomes a row that says why."""
    found: dict[str, Any] = {}
    histories: dict[str, Any] = {}
    troubles: dict[str, str] = {}
    for run in plan.runs:
        folder = Path(run.folder)
        try:
            record = records.read(folder)
            histories[run.folder] = _history(folder, record)
            found[run.folder] = record
        except FileNotFoundError:
            troubles[run.folder] = records.why_incomplete(folder)
        except records.CorruptRecord as error:
            troubles[run.folder] = str(error)
    rows, curves, peaks = [], [], costs.peaks(found.values())
    for run in plan.runs:
        if run.stage == "evaluate":
            rows.append(_result(run, plan.study, found, troubles, histories, peaks))
            curves += _curve(run, plan.study, found, histories)
    results = pd.DataFrame(rows)
    return Tables(
        study=plan.study,
        runs=pd.DataFrame([_job(run, found, troubles) for run in plan.runs]),
        results=results,
        summary=_summary(plan.study, results),
        comparisons=_comparisons(plan.study, results),
        history=pd.DataFrame(curves),
        records=found,
    )


def _history(folder: Path, record: dict[str, Any]) -> list[dict[str, float]]:
    if HISTORY not in record["files"]:
        return []
    rows = read_history(records.verified(folder, record, HISTORY))
    return [{name: float(row[name]) for name in row if name != "weights"} for row in rows]


def _job(run: Run, found: dict, troubles: dict) -> dict[str, Any]:
    row = {
        "stage": run.stage,
        "name": run.name,
        "seed": run.seed,
        "status": "complete" if run.folder in found else "missing",
        "reason": troubles.get(run.folder, ""),
        "folder": run.folder,
    }
    if run.folder in found:
        record = found[run.folder]
        row |= {"device": _device(record), "started": record["started"]}
        row |= {"timing": record["timing"], "gpus": " ".join(record["gpus"])}
        row |= {"contended": "; ".join(comparability.contended(record))}
        row |= {"oversubscribed": "; ".join(comparability.oversubscribed(record))}
        row |= {f"{phase}_seconds": value for phase, value in record["seconds"].items()}
        row |= {"steps_seconds": ledger.training_seconds(record["seconds"], "steps")}
        named = ("joules", "joules_missing_because", "peak_memory_bytes", "attempts")
        row |= {name: record[name] for name in named}
        row |= {"adopted": "; ".join(_adoption(entry) for entry in record.get("adopted", []))}
        row |= record["metrics"]
    return row


def _adoption(entry: dict[str, Any]) -> str:
    return f"adopted from {entry['digest']} on {entry['on'][:10]}, {entry['replayed']} replayed"


def _device(record: dict[str, Any]) -> str:
    device = record["device"]
    times = f"{device['devices']} x " if device["devices"] > 1 else ""
    if device["kind"] == "gpu":
        return f"{times}{device['name']}"
    plural = "s" if device["threads"] > 1 else ""
    return f"{device['name']}, {times}{device['threads']} thread{plural}"


def _result(
    run: Run, study: dict, found: dict, troubles: dict, histories: dict, peaks: dict
) -> dict[str, Any]:
    """An experiment with one seed: what it reached, and all the training that it took."""
    trained = run.parents["weights"]
    start = trained.parents.get("weights")
    chain = [stage for stage in (run.parents["data"], start, trained, run) if stage]
    trouble = next((stage for stage in chain if stage.folder in troubles), None)
    row: dict[str, Any] = {
        "experiment": run.name,
        "seed": run.seed,
        "status": "missing" if trouble else "complete",
        "reason": f"{trouble.stage} {troubles[trouble.folder]}" if trouble else "",
    }
    folders = {"pretrain": start, "finetune": trained, "evaluate": run}
    if not trouble:
        rule, trainings = study["report"]["clock"], [found[r.folder] for r in (start, trained) if r]
        seconds = [ledger.training_seconds(record["seconds"], rule) for record in trainings]
        pretraining, finetuning = sum(seconds[:-1]), seconds[-1]
        row |= found[run.folder]["metrics"]
        row |= {
            "pretraining_seconds": pretraining,
            "finetuning_seconds": finetuning,
            "training_seconds": pretraining + finetuning,
            "pretraining_share": pretraining / (pretraining + finetuning),
            "seconds_to_target": pretraining
            + costs.to_target(found[trained.folder], histories[trained.folder], study),
            "labels": found[trained.folder]["metrics"]["labels"],
            "parameters": found[trained.folder]["metrics"]["parameters"],
            "trained_parameters": found[trained.folder]["metrics"]["trained_parameters"],
            "device": _device(found[trained.folder]),
            "resumed": any(record["attempts"] > 1 for record in trainings),
            "adopted": any("adopted" in record for record in trainings),
            "contended": any(comparability.contended(record) for record in trainings),
            "oversubscribed": any(comparability.oversubscribed(record) for record in trainings),
            "joules": costs.joules(trainings),
            "flops_per_sample": found[trained.folder]["flops_per_sample"],
            "mfu": costs.mfu(found[trained.folder], histories[trained.folder], peaks),
            "peak_memory_bytes": max(record["peak_memory_bytes"] for record in trainings),
            "peak_device_memory_bytes": max(
                record["measured"].get("peak_device_memory_bytes", math.nan) for record in trainings
            ),
            "cost": sum(costs.price(record, study["report"].get("cost")) for record in trainings),
            "conditions": json.dumps([comparability.conditions(one) for one in trainings]),
        }
    return row | {f"{stage}_folder": r.folder if r else "" for stage, r in folders.items()}


def _curve(run: Run, study: dict, found: dict, histories: dict) -> list[dict[str, Any]]:
    trained = run.parents["weights"]
    start = trained.parents.get("weights")
    if trained.folder not in found or (start and start.folder not in found):
        return []
    rule = study["report"]["clock"]
    before = ledger.training_seconds(found[start.folder]["seconds"], rule) if start else 0.0
    metric = found[trained.folder]["monitor"]["metric"]
    return [
        {
            "experiment": run.name,
            "seed": run.seed,
            "step": row["step"],
            "seconds": row[f"{rule}_seconds"],
            "pretraining_seconds": before,
            "monitor": metric,
            "value": row[metric],
        }
        for row in histories[trained.folder]
    ]


def _ordered(study: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The experiments as a reader expects them: few labels first, from scratch first."""

    def place(item: tuple[str, dict[str, Any]]) -> tuple:
        name, entry = item
        labels = math.inf if entry["labels_per_class"] == "all" else entry["labels_per_class"]
        return labels, entry["pretraining"] != "none", name

    return sorted(study["experiments"].items(), key=place)


def _summary(study: dict[str, Any], results: pd.DataFrame) -> pd.DataFrame:
    metric = study["report"]["metric"]
    rows = []
    for name, entry in _ordered(study):
        planned = results[results["experiment"] == name]
        done = planned[planned["status"] == "complete"]
        row: dict[str, Any] = {
            "experiment": name,
            "pretraining": entry["pretraining"],
            "labels_per_class": entry["labels_per_class"],
            "n": len(done),
            "planned": len(planned),
            "reason": "; ".join(sorted(set(planned["reason"]) - {""})),
        }
        if len(done):
            row |= _estimate(metric, done[metric], *metrics.bounds(metric))
            row |= _estimate("training_seconds", done["training_seconds"], 0.0)
            row |= {
                "seconds_to_target_median": statistics.median_with_misses(
                    done["seconds_to_target"].tolist()
                ),
                "reached_target": int(done["seconds_to_target"].lt(math.inf).sum()),
                "pretraining_share_mean": statistics.mean(done["pretraining_share"].tolist()).mean,
                "parameters": int(done["parameters"].iloc[0]),
                "trained_parameters": int(done["trained_parameters"].iloc[0]),
                "device": " / ".join(sorted(set(done["device"]))),
                "resumed": int(done["resumed"].sum()),
                "adopted": int(done["adopted"].sum()),
                "contended": int(done["contended"].sum()),
                "oversubscribed": int(done["oversubscribed"].sum()),
                "joules_mean": done["joules"].mean(skipna=False),
                "flops_per_sample": done["flops_per_sample"].iloc[0],
                "mfu_mean": done["mfu"].mean(skipna=False),
                "peak_memory_bytes": int(done["peak_memory_bytes"].max()),
                "peak_device_memory_bytes": done["peak_device_memory_bytes"].max(),
                "cost_mean": done["cost"].mean(skipna=False),
            }
        rows.append(row)
    return pd.DataFrame(rows)


def _estimate(name: str, values: pd.Series, *limits: float) -> dict[str, float]:
    found = statistics.mean(values.tolist(), *limits)
    return {f"{name}_mean": found.mean, f"{name}_low": found.low, f"{name}_high": found.high}


def _comparisons(study: dict[str, Any], results: pd.DataFrame) -> pd.DataFrame:
    metric = study["report"]["metric"]
    columns = ["experiment", "baseline", "n"]
    rows = []
    named = study["report"]["comparisons"]
    pairs = [(name, other) for name, _ in _ordered(study) for other in named.get(name, [])]
    for name, baseline in pairs:
        row: dict[str, Any] = {"experiment": name, "baseline": baseline, "n": 0}
        done = results[results["status"] == "complete"].set_index("seed")
        ours, theirs = (done[done["experiment"] == which] for which in (name, baseline))
        seeds = sorted(set(ours.index) & set(theirs.index))
        if seeds:
            ours, theirs = ours.loc[seeds], theirs.loc[seeds]
            difference = statistics.mean((ours[metric] - theirs[metric]).tolist())
            seconds = ours["training_seconds"] - theirs["training_seconds"]
            used = [json.loads(text) for text in (*ours["conditions"], *theirs["conditions"])]
            apart = comparability.obstacles(condition for row in used for condition in row)
            row |= {
                "n": len(seeds),
                "difference_mean": difference.mean,
                "difference_low": difference.low,
                "difference_high": difference.high,
                "verdict": statistics.verdict(difference),
                "extra_training_seconds_mean": (
                    math.nan if apart else statistics.mean(seconds.tolist()).mean
                ),
                "seconds_not_comparable_because": "; ".join(apart),
            }
        rows.append(row)
    return pd.DataFrame(rows, columns=None if rows else columns)
