"""What the name of a metric tells: a name that ends in `accuracy` is a share, the more the better.

Of every other metric less is better.
"""

import math


def is_share(metric: str) -> bool:
    """Whether it lies between 0 and 1, and is shown as a percentage."""
    return metric.endswith("accuracy")


def bounds(metric: str) -> tuple[float, float]:
    """The least and the greatest value that a metric can take."""
    return (0.0, 1.0) if is_share(metric) else (-math.inf, math.inf)


def better(metric: str) -> str:
    """Whether `higher` or `lower` values are better."""
    return "higher" if is_share(metric) else "lower"
