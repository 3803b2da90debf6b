"""Networks for images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from support.image_models import INFO, MODELS, OBJECTIVES, VIT, images, network, trained
from torch.nn import functional

from assay import plugins
from assay.models.vit import sine_cosine_positions
from assay.nn import weight_resizing
from assay.runs import artifacts
from assay.runs.errors import JobError

PAIRS = [(model, name) for model in MODELS for name in OBJECTIVES
         if name != "masked_autoencoder" or model.startswith("vit")]  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
@settings(deadline=None, max_examples=10)
@given(count=st.integers(1, 3), channels=st.integers(1, 4), rows=st.integers(2, 5),
       columns=st.integers(2, 5))  # fmt: skip
def test_networks_compute_features_of_images_of_any_size(
    model: str, count: int, channels: int, rows: int, columns: int
) -> None:
    shape = (channels, 4 * rows, 4 * columns)
    built = network(model, shape)
    features = built(images(count, shape))
    assert features.shape == (count, built.features)
    assert features.isfinite().all()


@pytest.mark.parametrize("model", MODELS)
def test_each_feature_depends_on_the_image(model: str) -> None:
    first, second = network(model)(images(2))
    assert not torch.isclose(first, second).all()


@pytest.mark.parametrize("model", MODELS)
def test_blocks_hold_each_parameter_between_the_stem_and_the_last_norm_in_order(model: str) -> None:
    built = network(model)
    named = list(built.named_parameters(remove_duplicate=False))
    assert len({id(parameter) for _, parameter in named}) == len(named)
    index_of = {id(parameter): index for index, (_, parameter) in enumerate(named)}
    inside = [index_of[id(one)] for block in built.blocks for one in block.parameters()]
    assert inside == list(range(inside[0], inside[-1] + 1))
    outside = {name for index, (name, _) in enumerate(named) if index not in inside}
    assert {name.split(".")[0] for name in outside} <= {
        "position_embedding",
        "class_token",
        "patch_embedding",
        "norm",
    }
    assert [name for name, _ in named[inside[-1] + 1 :]] == (
        ["norm.weight", "norm.bias"] if model.startswith("vit") else []
    )


def test_weights_of_convolutional_networks_have_stable_names() -> None:
    stage = ["0.weight", "1.weight", "1.bias"]
    assert list(network("cnn").state_dict()) == [
        f"stages.{number}.{name}" for number in range(4) for name in stage
    ]
    names = set(network("resnet").state_dict())
    assert {"stages.0.0.weight", "stages.0.1.running_mean", "stages.2.branch.1.0.weight"} <= names
    assert len(names) == 8 * 6


@pytest.mark.parametrize("model", [name for name in MODELS if name != "mlp"])
@pytest.mark.parametrize(("before", "after"), [(3, 1), (1, 3), (2, 4), (3, 3)])
def test_a_grey_image_has_the_same_features_with_another_number_of_channels(
    model: str, before: int, after: int
) -> None:
    old, new = (network(model, (channels, 16, 12)) for channels in (before, after))
    with torch.no_grad():
        for weight in old.parameters():
            weight.add_(0.1)
    new.load_state_dict(new.adapt_weights(old.state_dict()))
    grey = images(2, (1, 16, 12))
    expected = old(grey.expand(-1, before, -1, -1))
    torch.testing.assert_close(new(grey.expand(-1, after, -1, -1)), expected)


def test_positions_are_resampled_only_for_another_grid() -> None:
    old, larger = network("vit", (3, 16, 12)), network("vit", (3, 24, 32))
    weights = old.state_dict()
    assert torch.equal(
        old.adapt_weights(weights)["position_embedding"], weights["position_embedding"]
    )
    adapted = larger.adapt_weights(weights)
    larger.load_state_dict(adapted)
    assert adapted["position_embedding"].shape == (6, 8, 16)
    assert larger(images(2, (3, 24, 32))).isfinite().all()
    flat = weight_resizing.resample_positions(torch.full((3, 4, 5), 0.7), 7, 2)
    torch.testing.assert_close(flat, torch.full((7, 2, 5), 0.7))
    ramp = torch.arange(4.0).view(1, 4, 1).expand(4, 4, 1)
    finer = weight_resizing.resample_positions(ramp, 4, 8)[0, :, 0]
    assert (finer.diff() > 0).all()  # columns did not become rows


def test_weights_of_other_patches_are_refused() -> None:
    coarse = plugins.load("model", "vit").build(INFO, **{**VIT, "patch_pixels": 2}, pool="mean")
    with pytest.raises(JobError, match="patches of 4 pixels, this one of 2: set patch_pixels: 4"):
        coarse.adapt_weights(network("vit").state_dict())


@pytest.mark.parametrize(
    ("model", "changes", "words"),
    [
        ("vit", {"patch_pixels": 5}, "16 x 12 pixels: choose a divisor of 4"),
        ("vit", {"heads": 3}, "width is 16: choose a multiple of 4 and of heads"),
        ("vit", {"width": 6}, "width is 6: choose a multiple of 4 and of heads"),
        ("mlp", {"widths": []}, "list a number above 0 for each layer"),
        ("mlp", {"widths": [4, 0]}, "list a number above 0 for each layer"),
    ],
)
def test_a_network_that_cannot_be_built_says_why(model: str, changes: dict, words: str) -> None:
    options = MODELS[model][1]
    with pytest.raises(ValueError, match=words):
        plugins.load("model", model).build(INFO, **{**options, **changes})


def test_positions_in_a_grid_all_differ() -> None:
    flat = sine_cosine_positions(5, 7, 12).flatten(0, 1)
    assert flat.shape == (35, 12)
    assert (torch.cdist(flat, flat) + torch.eye(35)).min() > 1e-2


@pytest.mark.parametrize("model", ["vit", "vit_token"])
def test_patches_are_encoded_in_any_order_and_their_mean_is_the_image(model: str) -> None:
    built, seen = network(model), images(2)
    embedded, order = built.embed(seen), torch.randperm(12)
    encoded = built.encode(embedded)
    torch.testing.assert_close(built.encode(embedded[:, order]), encoded[:, order])
    if model == "vit":
        torch.testing.assert_close(built(seen), encoded.mean(1))
    folded = functional.fold(built.patches(seen).transpose(1, 2), (16, 12), 4, stride=4)
    assert torch.equal(folded, seen)


@pytest.mark.parametrize(("model", "name"), PAIRS)
def test_each_network_trains_by_each_objective(model: str, name: str, tmp_path: Path) -> None:
    rows = trained(tmp_path, model, {"name": name, **OBJECTIVES[name]})
    assert len({row["weights"] for row in rows}) == 2
    assert all(np.isfinite(float(row["validation_loss"])) for row in rows)
    before, after = network(model).state_dict(), load_file(tmp_path / artifacts.WEIGHTS)
    assert {f"backbone.{key}" for key in before} <= set(after)
