"""Costs of trainings, from records that the tests write by hand."""

import pytest

from assay.reporting import costs
from assay.study.schema import Cost


def record(peak: float, threads: int = 1, seconds: float = 2.0) -> dict:
    return {
        "device": {"name": "a", "threads": threads, "devices": 1}, "precision": "32-true",
        "environment": {"packages": {"torch": "2"}}, "seconds": {"train": seconds},
        "measured": {"peak_flops_per_second": peak}, "flops_per_sample": 10.0,
    }  # fmt: skip


def test_mfu_is_relative_to_the_best_peak_of_any_run_under_equal_conditions() -> None:
    slowed, unslowed = record(50.0), record(100.0)
    peaks = costs.peaks([slowed, unslowed, record(900.0, threads=4)])
    history = [{"samples": 8.0}]
    assert costs.mfu(slowed, history, peaks) == pytest.approx(0.4)
    assert costs.mfu(unslowed, history, peaks) == pytest.approx(0.4)


def test_a_run_without_gpus_costs_its_cores_while_it_does_not_wait() -> None:
    run = {"gpus": [], "jobs_per_gpu": 1, "device": {"devices": 2, "threads": 3},
           "seconds": {"wall": 3700.0, "wait": 100.0}}  # fmt: skip
    assert costs.cost(run, Cost(per_hour=0.5, currency="EUR")) == pytest.approx(3.0)
    shared = run | {"gpus": ["a"], "jobs_per_gpu": 4}
    assert costs.cost(shared, Cost(per_hour=2.0, currency="EUR")) == 0.5
