"""Means over seeds and what they leave open."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its interval; the interval is NaN below two values."""

    mean: float
    low: float
    high: float
    n: int


def mean(values: Sequence[float], lowest: float = -math.inf, highest: float = math.inf) -> Estimate:
    """The mean with Student's t interval at 95%, cut to the values that are possible.

    It tells what another set of seeds would give with the same data and split. It does not tell
    what other test examples would give.

    Args:
        values: one per seed; none gives NaN.
        lowest: no value can be smaller.
        highest: no value can be larger.
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


def median_with_misses(values: Sequence[float]) -> float:
    """The median, where a seed that never got there counts as infinite (as in AlgoPerf)."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def verdict(difference: Estimate) -> str:
    """`higher` or `lower` where the interval excludes zero, else `open`."""
    if difference.low > 0:
        return "higher"
    return "lower" if difference.high < 0 else "open"
