"""Estimates over seeds, against other implementations."""

import math
import statistics as standard

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from assay.reporting import statistics


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9))
def test_the_interval_is_scipys(values: list[float]) -> None:
    estimate = statistics.mean(values)
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values) or 1e-99)
    assert estimate.mean == pytest.approx(np.mean(values), abs=1e-6)
    assert estimate.low == pytest.approx(low, rel=1e-6, abs=1e-4)
    assert estimate.high == pytest.approx(high, rel=1e-6, abs=1e-4)


def test_one_seed_has_no_interval_and_no_seed_no_mean() -> None:
    assert math.isnan(statistics.mean([0.5]).low)
    assert math.isnan(statistics.mean([]).mean)


@given(st.lists(st.floats(0, 9) | st.just(math.inf), min_size=1))
def test_a_miss_counts_as_infinite_in_the_median(values: list[float]) -> None:
    assert statistics.median(values) == pytest.approx(standard.median(values))
