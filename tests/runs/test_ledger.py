"""The phases of a run sum to its wall time, whatever interrupts it."""

import time

import pytest

from assay.runs.ledger import Ledger, training_seconds


def test_waiting_for_a_device_is_not_wasted_work(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.perf_counter()
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    ledger = Ledger()
    started = ledger.seconds["import"]
    with ledger.spend("wait"):
        now += 20
    now += 100
    ledger.resume({"train": 5.0})
    assert ledger.seconds["wait"] == pytest.approx(20)
    total = ledger.total()
    assert total["wasted"] == pytest.approx(started + 100 - 5)
    assert training_seconds(total, "mlperf") == pytest.approx(5 + total["wasted"])


def test_the_phases_sum_to_the_wall_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.perf_counter()
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    ledger = Ledger()
    ledger.enter("train")
    now += 8
    ledger.move("data_wait", 3)
    ledger.enter("other")
    now += 2
    total = ledger.total()
    assert (total["train"], total["data_wait"], total["other"]) == pytest.approx((5, 3, 2))
    assert total["wall"] == pytest.approx(total["import"] + 10)
