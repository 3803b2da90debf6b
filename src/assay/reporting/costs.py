"""What trainings took: seconds to a target, energy, a share of the device, money."""

import math
from collections.abc import Iterable
from typing import Any

from assay.runs import ledger

Record = dict[str, Any]
History = list[dict[str, float]]


def to_target(record: Record, history: History, study: dict[str, Any]) -> float:
    """Training seconds until the first validation at the target; infinite if there is none."""
    metric, mode, target = *record["monitor"].values(), study["report"]["target"]
    for row in history:
        if row[metric] >= target if mode == "max" else row[metric] <= target:
            return row[f"{study['report']['clock']}_seconds"]
    return math.inf


def joules(records: Iterable[Record]) -> float:
    """What trainings took together; not a number where that of one is not known."""
    return sum(math.nan if record["joules"] is None else record["joules"] for record in records)


def peaks(records: Iterable[Record]) -> dict[str, float]:
    """Operations per second of a matrix product, the best that any run on equal terms has seen.

    Each run measures it by itself, some beside others that held the device back.
    """
    found: dict[str, float] = {}
    for record in records:
        if peak := record.get("measured", {}).get("peak_flops_per_second"):
            found[_terms(record)] = max(peak, found.get(_terms(record), 0.0))
    return found


def mfu(record: Record, history: History, peaks: dict[str, float]) -> float:
    """Operations per second of the steps, as a share of those of a matrix product."""
    if record["flops_per_sample"] is None:
        return math.nan
    seconds = ledger.training_seconds(record["seconds"], "steps")
    rate = record["flops_per_sample"] * history[-1]["samples"] / seconds
    return rate / (record["device"]["devices"] * peaks[_terms(record)])


def price(record: Record, price: dict[str, Any] | None) -> float:
    """Of a run's wall time on its GPUs, or on its cores where it has none; not a number if free.

    While it waited for them it had none.
    """
    used = (
        len(record["gpus"]) / record["jobs_per_gpu"]
        or record["device"]["devices"] * record["device"]["threads"]
    )
    seconds = record["seconds"]["wall"] - record["seconds"]["wait"]
    return used * seconds / 3600 * price["per_hour"] if price else math.nan


def _terms(record: Record) -> str:
    device, torch = record["device"], record["environment"]["packages"]["torch"]
    return f"{device['name']}, {device['threads']} threads, {record['precision']}, {torch}"
