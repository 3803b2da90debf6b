"""Means over seeds and their uncertainty."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` seeds and its confidence interval, which is NaN for fewer than two seeds."""

    mean: float
    low: float
    high: float
    n: int


def mean(values: Sequence[float], lowest: float = -math.inf, highest: float = math.inf) -> Estimate:
    """Return the mean with Student's t interval at 95%, clipped to the possible values.

    The interval covers the choice of the seeds, given the data and the split. It does not cover
    the choice of the test examples.

    Args:
        values: one per seed; the mean of none is NaN.
        lowest: lower bound of the quantity.
        highest: upper bound of the quantity.
    """
    n = len(values)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    centre = math.fsum(values) / n
    if n == 1:
        return Estimate(centre, math.nan, math.nan, 1)
    variance = math.fsum((value - centre) ** 2 for value in values) / (n - 1)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * math.sqrt(variance / n)
    return Estimate(centre, max(lowest, centre - half), min(highest, centre + half), n)


def median(values: Sequence[float]) -> float:
    """Return the median; a seed that missed its target counts as infinite, as in AlgoPerf."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def verdict(difference: Estimate) -> str:
    """Return `higher` or `lower` if the interval excludes zero, else `open`."""
    if difference.low > 0:
        return "higher"
    return "lower" if difference.high < 0 else "open"
