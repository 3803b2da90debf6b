"""Writes what a benchmark has found to benchmarks/results/."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


def table(name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table to `results/<name>.csv`."""
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{name}.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
