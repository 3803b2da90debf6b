"""Numbers as text."""

import math
from functools import partial

import pytest

from assay.reporting import formatting
from assay.reporting.statistics import Estimate


@pytest.mark.parametrize(
    "number, text",
    ((2.789, "2.79 s"), (11.96, "12.0 s"), (119.9, "119.9 s"), (120, "2.0 min"),
     (7200, "2.0 h"), (math.inf, "not reached")),
)  # fmt: skip
def test_seconds_have_three_digits_or_a_larger_unit(number: float, text: str) -> None:
    assert formatting.seconds(number) == text


def test_an_interval_has_the_unit_of_its_mean_once() -> None:
    score, difference = (
        partial(each, "accuracy") for each in (formatting.score, formatting.difference)
    )
    assert formatting.with_interval(Estimate(0.942, 0.921, 0.965, 5), score) == (
        "94.2% (92.1 to 96.5)"
    )
    assert formatting.with_interval(Estimate(0.05, -0.01, 0.11, 5), difference) == (
        "+5.0 points (-1.0 to +11.0)"
    )
    assert formatting.with_interval(Estimate(0.9, math.nan, math.nan, 1), score) == (
        "90.0% (one seed)"
    )
    loss = partial(formatting.difference, "loss")
    assert formatting.with_interval(Estimate(-0.1, -0.25, 0.05, 3), loss) == "-0.1 (-0.25 to +0.05)"


@pytest.mark.parametrize("number, text", ((0.0, "0.00"), (2.5, "2.50"), (0.012345, "0.012")))
def test_small_amounts_of_money_keep_two_significant_digits(number: float, text: str) -> None:
    assert formatting.money(number, "EUR") == f"{text} EUR"
