"""Quantities as people read them."""

import pytest

from assay.runs import units


@pytest.mark.parametrize(
    ("seconds", "text"),
    ((0.04, "0.0 s"), (9.96, "10 s"), (75.2, "1 min 15 s"), (7260, "2 h 1 min"), (2e5, "2 d 7 h")),
)
def test_durations_have_at_most_two_units(seconds: float, text: str) -> None:
    assert units.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), ((0, "0 B"), (999, "999 B"), (999.7, "1 kB"), (1234567, "1.23 MB"))
)
def test_sizes_and_energies_have_three_digits(count: float, text: str) -> None:
    assert units.size(count) == text
    assert units.joules(count) == text.replace("B", "J")
