"""Numbers as text, with their units."""

import math
import re
from collections.abc import Callable
from typing import Any

from assay.reporting.statistics import Estimate
from assay.runs import metrics

UNKNOWN = "–"


def words(metric: str) -> str:
    """Return the name of a metric as words: `calibration_error` -> `calibration error`."""
    return metric.replace("_", " ")


def score(metric: str, number: float) -> str:
    """Return a fraction as a percentage and other metrics with four digits."""
    return f"{100 * number:.1f}%" if metrics.is_fraction(metric) else f"{number:.4g}"


def difference(metric: str, number: float) -> str:
    """Return the difference of two scores: `+8.7 points` for fractions, `-0.123` otherwise."""
    return f"{100 * number:+.1f} points" if metrics.is_fraction(metric) else f"{number:+.3g}"


def with_interval(estimate: Estimate, text: Callable[[float], str]) -> str:
    """Return a mean with its interval: `94.2% (92.1 to 96.5)`.

    Args:
        estimate: of at least one value.
        text: formats a number.
    """
    if math.isnan(estimate.low):
        return f"{text(estimate.mean)} (one seed)"
    low, high = (re.sub("%| points", "", text(limit)) for limit in (estimate.low, estimate.high))
    return f"{text(estimate.mean)} ({low} to {high})"


def span(numbers: list[float], text: Callable[[float], str]) -> str:
    """Return the lowest and the highest number, `+8.5 to +8.7 points`; equal texts once."""
    ends = dict.fromkeys(text(number) for number in (min(numbers), max(numbers)))
    return " to ".join(ends).replace(" points to", " to")


def seconds(number: float, signed: bool = False) -> str:
    """Return seconds with three digits, in minutes or hours from two of these."""
    sign = ("+" if number >= 0 else "−") if signed else ""
    number = abs(number) if signed else number
    if math.isinf(number):
        return "not reached"
    for size, unit in ((3600, "h"), (60, "min")):
        if number >= 2 * size:
            return f"{sign}{number / size:.1f} {unit}"
    return f"{sign}{number:.1f} s" if number >= 9.95 else f"{sign}{number:.2f} s"


def percent(number: float, digits: int = 1) -> str:
    """Return a fraction as a percentage."""
    return f"{100 * number:.{digits}f}%"


def count(number: float) -> str:
    """Return a whole number with separators of thousands."""
    return f"{number:,.0f}"


def money(number: float, currency: str) -> str:
    """Return an amount of money with two significant digits, or cents from 0.10 on."""
    digits = 2 if number >= 0.1 or not number else 1 - math.floor(math.log10(number))
    return f"{number:.{digits}f} {currency}"


def device(description: dict[str, Any]) -> str:
    """Return a record's `device` in short: `2 x NVIDIA H100` or `AMD EPYC, 1 thread`."""
    times = f"{description['devices']} x " if description["devices"] > 1 else ""
    if description["kind"] == "gpu":
        return f"{times}{description['name']}"
    plural = "s" if description["threads"] > 1 else ""
    return f"{description['name']}, {times}{description['threads']} thread{plural}"
