"""Costs of a training: seconds to a target, energy, model FLOP/s utilization (MFU) and money."""

import math
from collections.abc import Iterable
from typing import Any

from assay.runs import ledger
from assay.study.schema import Cost

Record = dict[str, Any]
History = list[dict[str, float]]


def seconds_to_target(record: Record, history: History, target: float, clock: str) -> float:
    """Return the training seconds until the first validation at the target, or infinity.

    Args:
        record: of the training.
        history: a row per validation.
        target: value of the monitored metric.
        clock: rule of `ledger.RULES` that says what counts as training time.
    """
    metric, mode = record["monitor"]["metric"], record["monitor"]["mode"]
    for row in history:
        if row[metric] >= target if mode == "max" else row[metric] <= target:
            return row[f"{clock}_seconds"]
    return math.inf


def joules(records: Iterable[Record]) -> float:
    """Return the energy of several trainings; NaN if that of one is unknown."""
    return sum(math.nan if record["joules"] is None else record["joules"] for record in records)


def peaks(records: Iterable[Record]) -> dict[str, float]:
    """Return the highest measured FLOP/s of a matrix product, by device and conditions.

    Every run measures it, some while other processes slow the device down, so the highest counts.
    """
    highest: dict[str, float] = {}
    for record in records:
        if flops_per_second := record.get("measured", {}).get("peak_flops_per_second"):
            key = _conditions(record)
            highest[key] = max(flops_per_second, highest.get(key, 0.0))
    return highest


def mfu(record: Record, history: History, peaks: dict[str, float]) -> float:
    """Return the FLOP/s of a training's steps as a fraction of those of a matrix product.

    Args:
        record: of the training; without `flops_per_sample` the result is NaN.
        history: a row per validation.
        peaks: see `peaks`.
    """
    if record["flops_per_sample"] is None:
        return math.nan
    seconds = ledger.training_seconds(record["seconds"], "steps")
    rate = record["flops_per_sample"] * history[-1]["samples"] / seconds
    return rate / (record["device"]["devices"] * peaks[_conditions(record)])


def cost(record: Record, rate: Cost | None) -> float:
    """Return what a run's wall time costs, without the time that it waited for a device.

    Args:
        record: of the run.
        rate: of a GPU, or of a core for a run without GPUs; None gives NaN.
    """
    if not rate:
        return math.nan
    units = (
        len(record["gpus"]) / record["jobs_per_gpu"]
        or record["device"]["devices"] * record["device"]["threads"]
    )
    seconds = record["seconds"]["wall"] - record["seconds"]["wait"]
    return units * seconds / 3600 * rate.per_hour


def _conditions(record: Record) -> str:
    device, torch = record["device"], record["environment"]["packages"]["torch"]
    return f"{device['name']}, {device['threads']} threads, {record['precision']}, {torch}"
