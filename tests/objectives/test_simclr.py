"""The contrastive loss of SimCLR."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.image_models import OBJECTIVES, trained
from support.trainings import attempt
from torch import Tensor
from torch.nn import functional

from assay.objectives import simclr
from assay.runs import artifacts


def naive_nt_xent(first: Tensor, second: Tensor, temperature: float) -> float:
    """NT-Xent by its definition: for each view, a sum over all others."""
    views, count = [*first, *second], len(first)
    losses = []
    for i, view in enumerate(views):
        similar = {j: float(view @ other) / temperature for j, other in enumerate(views) if j != i}
        partner = similar[(i + count) % (2 * count)]
        losses.append(-partner + np.log(sum(np.exp(value) for value in similar.values())))
    return float(np.mean(losses))


@settings(deadline=None, max_examples=30)
@given(count=st.integers(2, 6), ranks=st.integers(1, 3), temperature=st.floats(0.1, 2),
       seed=st.integers(0, 99))  # fmt: skip
def test_nt_xent_equals_its_definition_on_any_number_of_devices(
    count: int, ranks: int, temperature: float, seed: int
) -> None:
    vectors = torch.randn(2, ranks, count, 5, generator=torch.Generator().manual_seed(seed))
    first, second = functional.normalize(vectors, dim=3)
    gathered = torch.cat([first, second], 1).flatten(0, 1)
    losses = [
        simclr.nt_xent(torch.cat([first[rank], second[rank]]), gathered, rank, temperature)
        for rank in range(ranks)
    ]
    expected = naive_nt_xent(first.flatten(0, 1), second.flatten(0, 1), temperature)
    assert float(sum(losses) / ranks) == pytest.approx(expected, rel=1e-4)


def test_losses_on_two_devices_equal_those_on_one(tmp_path: Path) -> None:
    objective = {
        "name": "simclr",
        **OBJECTIVES["simclr"],
        "augmentation": 1e-9,
        "horizontal_flip": False,
    }
    losses = []
    for devices in (1, 2):
        folder = tmp_path / str(devices)

        def work(folder: Path = folder, devices: int = devices) -> None:
            trained(folder, "mlp", objective, devices=devices)

        assert attempt(work) == 0
        rows = csv.DictReader((folder / artifacts.HISTORY).open())
        losses.append([float(row["training_loss"]) for row in rows])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
