"""Batches, labels and weights, as the training stages use them."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from support.checkout import PROJECT, Checkout
from support.modules import Tied, fitted

from assay import finetune
from assay.data import split_files
from assay.datasets import digits
from assay.models import resnet
from assay.runs import records
from assay.runs.data_info import DataInfo
from assay.training import batches, flops, rng


@settings(deadline=None)
@given(
    count=st.integers(1, 40), size=st.integers(1, 40), seed=st.integers(0, 2**32 - 1),
    rounds=st.integers(1, 4), per_round=st.integers(1, 5),
)  # fmt: skip
def test_batches_are_full_and_every_epoch_holds_each_example_once(
    count: int, size: int, seed: int, rounds: int, per_round: int
) -> None:
    found = batches.Batches({"x": torch.arange(count)}, size, per_round, seed)
    seen = [batch["x"] for _ in range(rounds) for batch in found]
    assert all(len(batch) == size for batch in seen)
    stream = torch.cat(seen).tolist()
    for start in range(0, len(stream) - count + 1, count):
        assert sorted(stream[start : start + count]) == list(range(count))


@settings(deadline=None)
@given(count=st.integers(1, 40), size=st.integers(1, 9), number=st.integers(0, 50))
def test_a_batch_is_a_function_of_seed_and_number_alone(count: int, size: int, number: int) -> None:
    data = {"x": torch.arange(count)}
    one = batches.Batches(data, size, 3, seed=5).rows(number)
    torch.rand(7)
    assert torch.equal(one, batches.Batches(data, size, 11, seed=5).rows(number))


@given(count=st.integers(1, 200), largest=st.integers(1, 50))
def test_validation_sees_each_example_once_in_order(count: int, largest: int) -> None:
    found = batches.InOrder({"x": torch.arange(count)}, largest)
    seen = [batch["x"] for batch in found]
    assert torch.cat(seen).tolist() == list(range(count))
    assert len(seen) == len(found)
    assert max(map(len, seen)) <= largest


@pytest.mark.parametrize("kind", [torch.float32, torch.uint8, torch.int32, torch.int64])
def test_what_changes_a_batch_of_validation_in_place_leaves_the_data(kind: torch.dtype) -> None:
    found = batches.InOrder({"x": torch.arange(9).to(kind)}, 4)
    first = [batch["x"].clone() for batch in found]
    for batch in found:
        batch["x"] *= 0
    assert all(torch.equal(batch["x"], before) for batch, before in zip(found, first, strict=True))


def test_seeds_and_purposes_give_different_draws() -> None:
    drawn = {rng.mix(seed, *purpose) for seed in range(50) for purpose in
             (("step", 1), ("step", 2), ("order", 1), ("step1",))}  # fmt: skip
    assert len(drawn) == 200


@given(st.integers(0, 9), st.integers(1, 5), st.integers(1, 5))
def test_labelled_examples_are_stratified_and_fewer_are_among_more(
    seed: int, few: int, more: int
) -> None:
    labels = torch.arange(60) % 4
    chosen = {k: finetune.labelled(labels, k, seed).tolist() for k in (few, few + more)}
    assert set(chosen[few]) <= set(chosen[few + more])
    assert set(Counter(labels[chosen[few]].tolist()).values()) == {few}


def runs(checkout: Checkout, pattern: str) -> list:
    return sorted((checkout.folder / "results").glob(pattern))


def test_a_frozen_backbone_keeps_the_pretrained_weights_and_a_free_one_does_not(
    finished: Checkout,
) -> None:
    for seed in (0, 1):
        [start] = runs(finished, f"pretrain/self_supervised/seed{seed}-*/weights.safetensors")
        pretrained = load_file(start)
        for name, kept in (("frozen_few", True), ("finetuned_few", False)):
            [path] = runs(finished, f"finetune/{name}/seed{seed}-*/weights.safetensors")
            tuned = load_file(path)
            backbone = [key for key in tuned if key.startswith("backbone.")]
            assert all(torch.equal(tuned[k], pretrained[k]) for k in backbone) == kept
            assert {key for key in tuned if key.startswith("head.")}
            assert not {key for key in tuned if key.startswith("expander.")}


def test_a_loss_that_is_not_finite_fails_with_its_step_and_remedy(checkout: Checkout) -> None:
    checkout.edit("config.yaml", "backbone: 0.003", "backbone: 1000")
    checkout.edit("config.yaml", "weight_decay: 0.01", "weight_decay: 1000")
    done = checkout.run("snakemake", "--cores", "2")
    assert done.returncode != 0
    [failure, *_] = runs(checkout, "finetune/scratch_few/*/failure.json")
    assert "not finite at step" in failure.read_text()


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
    command = [sys.executable, "-m", "assay.finetune", "--settings", json.dumps(chosen)]
    places = ["--seed", "0", "--data", tmp_path / "data", "--output", tmp_path / "run"]
    subprocess.run([*command, *places], check=True, env={"PYTHONPATH": str(PROJECT / "src")})
    assert records.read(tmp_path / "run")["metrics"]["validation_accuracy"] > 0.9


def test_the_residual_network_takes_images_that_can_be_halved_three_times() -> None:
    for channels, pixels in ((1, 8), (1, 28), (3, 32)):
        network = resnet.build(DataInfo(shape=(channels, pixels, pixels)), width=2, features=5)
        assert network(torch.rand(2, channels, pixels, pixels)).shape == (2, network.features)
    with pytest.raises(ValueError, match="8 at least"):
        resnet.build(DataInfo(shape=(1, 7, 28)), width=2, features=5)


def test_averaging_leaves_the_training_alone_where_layers_share_their_weights(
    tmp_path: Path,
) -> None:
    _, plain = fitted(tmp_path / "plain", {})
    _, averaged = fitted(tmp_path / "averaged", {"ema_decay": 0.5})
    losses = [[row["training_loss"] for row in rows] for rows in (plain, averaged)]
    assert losses[0] == losses[1]
    assert plain[-1]["validation_loss"] != averaged[-1]["validation_loss"]


def test_operations_are_counted_on_a_copy() -> None:
    class Counting(Tied):
        calls = 0

        def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
            self.calls += 1
            return super().training_step(batch, index) * torch.rand(())

    module, batch = Counting(), {"image": torch.rand(8, 4)}
    drawn = torch.get_rng_state()
    counted, why = flops.per_sample(module, batch, batches.HOST)
    forward, backward = 3 * 2 * 16, 4 * 2 * 16  # three layers; the input and one weight need none
    assert (counted, why) == (forward + backward, None)
    assert module.calls == 0 and module.head.weight.grad is None
    assert torch.equal(torch.get_rng_state(), drawn)


def test_a_step_that_cannot_be_counted_says_why() -> None:
    class Attached(Tied):
        def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
            return super().training_step(batch, index) * self.trainer.num_devices

    counted, why = flops.per_sample(Attached(), {"image": torch.rand(8, 4)}, batches.HOST)
    assert counted is None and "not attached to a `Trainer`" in why


def test_a_step_that_looks_at_its_numbers_is_counted_where_it_can_be_computed() -> None:
    class Looking(Tied):
        def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
            return super().training_step(batch, index) * (1 + batch["image"].sum().item())

    batch = {"image": torch.rand(8, 4)}
    counted = [flops.per_sample(Looking(), batch, device) for device in (batches.HOST, None)]
    assert counted[0] == flops.per_sample(Tied(), batch, batches.HOST)
    assert counted[1][0] is None and "a step alone fails" in counted[1][1]


def test_what_a_module_has_frozen_itself_stays_frozen(tmp_path: Path) -> None:
    module, _ = fitted(tmp_path, {})
    assert torch.equal(module.fixed.weight, Tied().fixed.weight)
    assert not torch.equal(module.head.weight, Tied().head.weight)
