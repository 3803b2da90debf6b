"""Properties of a metric that follow from its name.

A metric whose name ends in `accuracy` is a fraction and is better the higher it is. Every other
metric is better the lower it is.
"""

import math


def is_fraction(metric: str) -> bool:
    """Return whether a metric lies between 0 and 1 and is shown as a percentage."""
    return metric.endswith("accuracy")


def bounds(metric: str) -> tuple[float, float]:
    """Return the lowest and the highest possible value of a metric."""
    return (0.0, 1.0) if is_fraction(metric) else (-math.inf, math.inf)


def higher_is_better(metric: str) -> bool:
    """Return whether higher values of a metric are better."""
    return is_fraction(metric)
