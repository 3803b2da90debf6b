"""Rows of a report for single runs: jobs, results and validations."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.reporting import comparability, costs, formatting, measures
from assay.reporting.columns import Result, Row
from assay.reporting.costs import History, Record
from assay.runs import artifacts, ledger, records
from assay.study.plan import Plan, Run

COPIED = ("started", "timing", "joules", "joules_missing_because", "peak_memory_bytes", "attempts")


@dataclass(frozen=True)
class Runs:
    """The complete runs of a plan, and why others are missing, by folder."""

    records: dict[str, Record]
    histories: dict[str, History]
    reasons: dict[str, str]


def read(plan: Plan) -> Runs:
    """Read the records and histories of a plan's runs."""
    runs = Runs({}, {}, {})
    for run in plan.runs:
        folder = Path(run.folder)
        try:
            record = records.read(folder)
            runs.histories[run.folder] = _history(folder, record)
            runs.records[run.folder] = record
        except FileNotFoundError:
            runs.reasons[run.folder] = records.why_incomplete(folder)
        except records.CorruptRecord as error:
            runs.reasons[run.folder] = str(error)
    return runs


def job(run: Run, runs: Runs) -> Row:
    """Return a row of runs.csv."""
    row = {
        "stage": run.stage,
        "name": run.name,
        "seed": run.seed,
        "status": "complete" if run.folder in runs.records else "missing",
        "reason": runs.reasons.get(run.folder, ""),
        "folder": run.folder,
    }
    if record := runs.records.get(run.folder):
        row |= {
            "device": formatting.device(record["device"]),
            "gpus": " ".join(record["gpus"]),
            "contended": "; ".join(comparability.contended(record)),
            "oversubscribed": "; ".join(comparability.oversubscribed(record)),
            "adopted": "; ".join(map(_adoption, record.get("adopted", []))),
            **{f"{phase}_seconds": value for phase, value in record["seconds"].items()},
            "steps_seconds": ledger.training_seconds(record["seconds"], "steps"),
            **{name: record[name] for name in COPIED},
        }
        row |= _metrics(record, row)
    return row


def all_of(plan: Plan, runs: Runs) -> list[Row]:
    """Return the rows of results.csv: what each experiment reached and took with each seed."""
    columns = [each for each in measures.of_experiments(plan.study.report) if each.per_run]
    taken = measures.taken(plan.study.report)
    peaks = costs.peaks(runs.records.values())
    rows = []
    for run in evaluations(plan):
        pretraining, finetuning = trainings(run)
        row = _identity(run, runs)
        if row["status"] == "complete":
            used = [runs.records[each.folder] for each in (pretraining, finetuning) if each]
            result = Result(used, runs.histories[finetuning.folder], peaks)
            row |= _metrics(runs.records[run.folder], taken)
            row |= {column.name: column.per_run(result) for column in columns}
        row |= {"pretrain_folder": pretraining.folder if pretraining else ""}
        rows.append(row | {"finetune_folder": finetuning.folder, "evaluate_folder": run.folder})
    return rows


def validations(plan: Plan, runs: Runs) -> list[Row]:
    """Return the validations of each experiment's fine-tuning with each seed."""
    clock, rows = plan.study.report.clock, []
    for run in evaluations(plan):
        pretraining, finetuning = trainings(run)
        if any(each and each.folder not in runs.records for each in (pretraining, finetuning)):
            continue
        before = runs.records[pretraining.folder]["seconds"] if pretraining else {}
        monitor = runs.records[finetuning.folder]["monitor"]["metric"]
        rows += [
            {
                "experiment": run.name,
                "seed": run.seed,
                "step": row["step"],
                "seconds": row[f"{clock}_seconds"],
                "pretraining_seconds": ledger.training_seconds(before, clock),
                "monitor": monitor,
                "value": row[monitor],
            }
            for row in runs.histories[finetuning.folder]
        ]
    return rows


def evaluations(plan: Plan) -> list[Run]:
    """Return the runs that a result each belongs to."""
    return [run for run in plan.runs if run.stage == "evaluate"]


def trainings(evaluation: Run) -> tuple[Run | None, Run]:
    """Return the pretraining, if there is one, and the fine-tuning behind an evaluation."""
    finetuning = evaluation.parents["weights"]
    return finetuning.parents.get("weights"), finetuning


def _history(folder: Path, record: Record) -> History:
    if artifacts.HISTORY not in record["files"]:
        return []
    rows = artifacts.read_history(records.verified(folder, record, artifacts.HISTORY))
    return [{name: float(row[name]) for name in row if name != "weights"} for row in rows]


def _identity(run: Run, runs: Runs) -> Row:
    """Return which result a row is of, and why it is missing if it is."""
    chain = (run.parents["data"], *trainings(run), run)
    missing = [each for each in chain if each and each.folder in runs.reasons]
    return {
        "experiment": run.name,
        "seed": run.seed,
        "status": "missing" if missing else "complete",
        "reason": f"{missing[0].stage} {runs.reasons[missing[0].folder]}" if missing else "",
    }


def _metrics(record: Record, taken: Iterable[str]) -> Row:
    return {measures.free_name(name, taken): value for name, value in record["metrics"].items()}


def _adoption(entry: dict[str, Any]) -> str:
    return f"adopted from {entry['digest']} on {entry['on'][:10]}, {entry['replayed']} replayed"
