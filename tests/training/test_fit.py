"""Batches, labels and weights, as the training stages use them."""

import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from support.modules import Tied, fitted
from support.objectives import ADAPTATIONS, CNN, IMAGES, prepare, pretrained, tuned
from support.trainings import attempt, train, workshop

from assay import finetune
from assay.data import split_files
from assay.datasets import digits
from assay.models import resnet
from assay.runs import artifacts, records
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode
from assay.training import rng


def test_seeds_and_purposes_give_different_draws() -> None:
    drawn = {rng.mix(seed, *purpose) for seed in range(50) for purpose in
             (("step", 1), ("step", 2), ("order", 1), ("step1",))}  # fmt: skip
    assert len(drawn) == 200


@given(st.integers(0, 9), st.integers(1, 5), st.integers(1, 5))
def test_few_shot_examples_are_stratified_and_fewer_are_among_more(
    seed: int, few: int, more: int
) -> None:
    labels = torch.arange(60) % 4
    chosen = {k: finetune.few_shot_rows(labels, k, seed).tolist() for k in (few, few + more)}
    assert set(chosen[few]) <= set(chosen[few + more])
    assert set(Counter(labels[chosen[few]].tolist()).values()) == {few}


def test_a_frozen_backbone_keeps_the_pretrained_weights_and_a_free_one_does_not(
    tmp_path: Path,
) -> None:
    data = prepare(tmp_path / "data", IMAGES)
    assert attempt(pretrained("vicreg", data, tmp_path / "weights")) == 0
    start = load_file(tmp_path / "weights" / artifacts.WEIGHTS)
    for name, kept in (("frozen", True), ("full", False)):
        changes = ADAPTATIONS[name]
        assert attempt(tuned(data, tmp_path / name, tmp_path / "weights", CNN, changes)) == 0
        weights = load_file(tmp_path / name / artifacts.WEIGHTS)
        backbone = [key for key in weights if key.startswith("backbone.")]
        assert all(torch.equal(weights[key], start[key]) for key in backbone) == kept
        assert {key for key in weights if key.startswith("head.")}
        assert not {key for key in weights if key.startswith("expander.")}


def test_a_loss_that_is_not_finite_fails_with_its_step_and_remedy() -> None:
    changes = {"learning_rate": 1000.0, "weight_decay": 1000.0}
    with workshop() as (data, runs):
        assert attempt(train(data, runs / "a", changes)) == ExitCode.DIVERGED
        reason = records.read_failure(runs / "a")["reason"]
        assert re.search(r"not finite at step \d+.*; the learning rate is now \d+", reason)
        assert "lower learning_rate or raise warmup_steps" in reason


def test_the_residual_network_learns_digits_in_few_steps(tmp_path: Path) -> None:
    for split, arrays in digits.prepare().items():
        split_files.write(tmp_path / "data", split, arrays)
    prepared = {"stage": "prepare", "name": "digits", "seed": None, "digest": "0" * 16}
    records.write(
        tmp_path / "data",
        {**prepared, "info": digits.INFO.to_record(), "settings": {}, "parents": {}},
    )
    chosen = {
        "model": {"name": "resnet", "width": 8, "features": 32},
        "objective": {"name": "classification", "label_smoothing": 0.0, "augmentation": 0.0},
        "labels_per_class": "all", "steps": 40, "batch_size": 64, "validate_every_steps": 40,
        "learning_rate": 0.01, "weight_decay": 0.01, "warmup_steps": 4, "frozen": [],
        "device": "cpu", "precision": "32-true", "threads": 1,
    }  # fmt: skip
    data, output = tmp_path / "data", tmp_path / "run"
    assert attempt(lambda: finetune.finetune(chosen, 0, data, output)) == 0
    assert records.read(output)["metrics"]["validation_accuracy"] > 0.9


def test_the_residual_network_takes_images_that_can_be_halved_three_times() -> None:
    for channels, pixels in ((1, 8), (1, 28), (3, 32)):
        network = resnet.build(DataInfo(shape=(channels, pixels, pixels)), width=2, features=5)
        assert network(torch.rand(2, channels, pixels, pixels)).shape == (2, network.features)
    with pytest.raises(ValueError, match="at least 8 x 8"):
        resnet.build(DataInfo(shape=(1, 7, 28)), width=2, features=5)


def test_ema_does_not_change_the_training_of_tied_layers(
    tmp_path: Path,
) -> None:
    _, plain = fitted(tmp_path / "plain", {})
    _, averaged = fitted(tmp_path / "averaged", {"ema_decay": 0.5})
    losses = [[row["training_loss"] for row in rows] for rows in (plain, averaged)]
    assert losses[0] == losses[1]
    assert plain[-1]["validation_loss"] != averaged[-1]["validation_loss"]


def test_weights_that_a_module_froze_itself_stay_frozen(tmp_path: Path) -> None:
    module, _ = fitted(tmp_path, {})
    assert torch.equal(module.fixed.weight, Tied().fixed.weight)
    assert not torch.equal(module.head.weight, Tied().head.weight)
