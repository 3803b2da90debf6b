"""Networks for images, what they can learn, and how a classification is measured."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from support.trainings import attempt
from torch import Tensor, nn
from torch.nn import functional

from assay import plugins
from assay.jobs.job import Job
from assay.nn import augmentations, weight_resizing
from assay.objectives import simclr
from assay.objectives.masked_autoencoder import MaskedAutoencoder
from assay.runs import artifacts
from assay.runs.data_info import DataInfo
from assay.runs.errors import JobError
from assay.runs.execution import Execution
from assay.study.training_settings import TrainingSettings
from assay.training import fit

VIT = {"patch_pixels": 4, "layers": 2, "heads": 2, "width": 16}
MODELS = {
    "cnn": ("cnn", {"width": 4, "features": 8}),
    "resnet": ("resnet", {"width": 4, "features": 8}),
    "mlp": ("mlp", {"widths": [12, 8], "activation": "gelu"}),
    "vit": ("vit", {**VIT, "pool": "mean"}),
    "vit_token": ("vit", {**VIT, "pool": "token"}),
}
DECODER = {"decoder_layers": 1, "decoder_heads": 2, "decoder_width": 8}
AUTOENCODER = {"masked_fraction": 0.6, **DECODER, "normalised": True}
OBJECTIVES = {
    "classification": {
        "label_smoothing": 0.1, "augmentation": 0.5, "horizontal_flip": True,
        "random_crop_padding": 2,
    },
    "vicreg": {
        "embedding": 8, "invariance": 25.0, "variance": 25.0, "covariance": 1.0,
        "augmentation": 1.0, "horizontal_flip": True, "random_crop_padding": 1,
    },
    "simclr": {"embedding": 8, "temperature": 0.2, "augmentation": 1.0, "horizontal_flip": True},
    "masked_image": {"patch_pixels": 4, "masked_fraction": 0.5, "hidden_features": 8},
    "masked_autoencoder": AUTOENCODER,
}  # fmt: skip
INFO = DataInfo(shape=(3, 16, 12), classes=7)


def network(model: str, shape: tuple[int, int, int] = INFO.shape) -> nn.Module:
    name, chosen = MODELS[model]
    torch.manual_seed(0)
    return plugins.load("model", name).build(DataInfo(shape=shape), **chosen).eval()


def images(count: int, shape: tuple[int, int, int] = INFO.shape, seed: int = 0) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("model", MODELS)
@settings(deadline=None, max_examples=10)
@given(count=st.integers(1, 3), channels=st.integers(1, 4), rows=st.integers(2, 5),
       columns=st.integers(2, 5))  # fmt: skip
def test_networks_make_a_feature_vector_of_images_of_any_size(
    model: str, count: int, channels: int, rows: int, columns: int
) -> None:
    shape = (channels, 4 * rows, 4 * columns)
    built = network(model, shape)
    found = built(images(count, shape))
    assert found.shape == (count, built.features)
    assert found.isfinite().all()


@pytest.mark.parametrize("model", MODELS)
def test_each_feature_depends_on_the_image(model: str) -> None:
    first, second = network(model)(images(2))
    assert not torch.isclose(first, second).all()


@pytest.mark.parametrize("model", MODELS)
def test_blocks_hold_each_parameter_between_the_stem_and_the_last_norm_in_order(model: str) -> None:
    built = network(model)
    named = list(built.named_parameters(remove_duplicate=False))
    assert len({id(parameter) for _, parameter in named}) == len(named)
    place = {id(parameter): index for index, (_, parameter) in enumerate(named)}
    inside = [place[id(one)] for block in built.blocks for one in block.parameters()]
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


def test_weights_of_earlier_networks_keep_their_names() -> None:
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


def test_positions_of_the_same_grid_stay_and_others_are_interpolated() -> None:
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
    chosen = MODELS[model][1]
    with pytest.raises(ValueError, match=words):
        plugins.load("model", model).build(INFO, **{**chosen, **changes})


def test_positions_in_a_grid_are_all_different() -> None:
    from assay.models.vit import sine_cosine_positions

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


def test_without_mirror_and_crop_nothing_else_is_drawn() -> None:
    batch = images(4)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert augmentations.augment(batch, 0.0) is batch
    assert torch.equal(torch.get_rng_state(), before)
    plain = augmentations.augment(batch, 1.0)
    torch.manual_seed(1)
    assert torch.equal(
        augmentations.augment(batch, 1.0, horizontal_flip=False, random_crop_padding=0), plain
    )


def test_half_of_the_images_are_mirrored_and_no_pixel_is_lost() -> None:
    torch.manual_seed(0)
    batch = images(400)
    found = augmentations.augment(batch, 0.0, horizontal_flip=True)
    same, flipped = ((found == other).flatten(1).all(1) for other in (batch, batch.flip(3)))
    assert (same ^ flipped).all()
    assert 150 < int(flipped.sum()) < 250


@settings(deadline=None, max_examples=20)
@given(pixels=st.integers(1, 5), horizontal_flip=st.booleans(), channels=st.integers(1, 3),
       height=st.integers(6, 9), width=st.integers(6, 9))  # fmt: skip
def test_a_crop_is_one_of_those_of_an_image_with_a_reflected_border(
    pixels: int, horizontal_flip: bool, channels: int, height: int, width: int
) -> None:
    torch.manual_seed(0)
    batch = images(8, (channels, height, width))
    found = augmentations.augment(
        batch, 0.0, horizontal_flip=horizontal_flip, random_crop_padding=pixels
    )
    padded = functional.pad(batch, [pixels] * 4, mode="reflect")
    crops = padded.unfold(2, height, 1).unfold(3, width, 1).flatten(2, 3).transpose(1, 2)
    crops = torch.cat([crops, crops.flip(-1)], 1) if horizontal_flip else crops
    matches = (crops == found.unsqueeze(1)).flatten(2).all(2)
    assert matches.any(1).all()
    assert len(matches.nonzero()[:, 1].unique()) > 1


def test_a_crop_as_large_as_the_image_is_refused() -> None:
    with pytest.raises(
        JobError, match="random_crop_padding is 12, but the images have 16 x 12 pixels"
    ):
        augmentations.augment(images(2), 0.0, random_crop_padding=12)


def naive_contrast(first: Tensor, second: Tensor, temperature: float) -> float:
    """NT-Xent as its definition reads: for each view a sum over all others."""
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
def test_the_contrastive_loss_is_that_of_its_definition_on_any_number_of_devices(
    count: int, ranks: int, temperature: float, seed: int
) -> None:
    drawn = torch.randn(2, ranks, count, 5, generator=torch.Generator().manual_seed(seed))
    first, second = functional.normalize(drawn, dim=3)
    everyone = torch.cat([first, second], 1).flatten(0, 1)
    losses = [
        simclr.nt_xent(torch.cat([first[rank], second[rank]]), everyone, rank, temperature)
        for rank in range(ranks)
    ]
    expected = naive_contrast(first.flatten(0, 1), second.flatten(0, 1), temperature)
    assert float(sum(losses) / ranks) == pytest.approx(expected, rel=1e-4)


def trained(folder: Path, model: str, objective: dict, **changes: object) -> list[dict[str, str]]:
    """The history of a training of some steps, which writes its weights."""
    name, chosen = MODELS[model]
    run = {
        "model": {"name": name, **chosen}, "objective": objective, "steps": 4, "batch_size": 8,
        "validate_every_steps": 2, "learning_rate": 0.01, "weight_decay": 0.01, "warmup_steps": 1,
        "frozen": [], "device": "cpu", "precision": "32-true", "threads": 1, **changes,
    }  # fmt: skip
    settings = TrainingSettings.from_dict(run)
    fit.configure_torch(settings.threads, settings.devices)
    data = {"image": images(24), "label": torch.arange(24) % INFO.classes}
    module = fit.build(settings.model, settings.objective, INFO, 0)
    job = Job.open("finetune", run, {}, 0, folder, Execution(progress_seconds=0))
    fit.fit(job, settings, module, data, data)
    return list(csv.DictReader((folder / artifacts.HISTORY).open()))


PAIRS = [(model, name) for model in MODELS for name in OBJECTIVES
         if name != "masked_autoencoder" or model.startswith("vit")]  # fmt: skip


@pytest.mark.parametrize(("model", "name"), PAIRS)
def test_each_network_trains_by_each_objective(model: str, name: str, tmp_path: Path) -> None:
    rows = trained(tmp_path, model, {"name": name, **OBJECTIVES[name]})
    assert len({row["weights"] for row in rows}) == 2
    assert all(np.isfinite(float(row["validation_loss"])) for row in rows)
    before, after = network(model).state_dict(), load_file(tmp_path / artifacts.WEIGHTS)
    assert {f"backbone.{key}" for key in before} <= set(after)


def test_contrasts_on_two_devices_are_those_of_one(tmp_path: Path) -> None:
    objective = {
        "name": "simclr",
        **OBJECTIVES["simclr"],
        "augmentation": 1e-9,
        "horizontal_flip": False,
    }
    found = []
    for devices in (1, 2):
        folder = tmp_path / str(devices)

        def work(folder: Path = folder, devices: int = devices) -> None:
            trained(folder, "mlp", objective, devices=devices)

        assert attempt(work) == 0
        rows = csv.DictReader((folder / artifacts.HISTORY).open())
        found.append([float(row["training_loss"]) for row in rows])
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def autoencoder(model: str = "vit", **changes: object) -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(network(model), INFO, **{**AUTOENCODER, **changes}).eval()


def in_patches(shown: Tensor, hidden: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Images in which some patches, (n, patches) by truth, are changed."""
    mask = hidden.view(-1, 1, 4, 3).repeat_interleave(4, 2).repeat_interleave(4, 3)
    return torch.where(mask, change(shown), shown)


@pytest.mark.parametrize("model", ["vit", "vit_token"])
@pytest.mark.parametrize("normalised", [False, True])
def test_hidden_patches_do_not_reach_the_encoder_and_they_alone_count(
    model: str, normalised: bool
) -> None:
    module, shown = autoencoder(model, normalised=normalised), images(3)
    encoded, targets = [], []
    encode = module.backbone.encode
    module.backbone.encode = lambda patches: encoded.append(encode(patches)) or encoded[-1]
    paint = module._reconstruct
    module._reconstruct = lambda *places: targets.append(places) or paint(*places)

    def loss(seen: Tensor) -> Tensor:
        torch.manual_seed(5)
        return module._loss(seen)

    expected = loss(shown)
    _, visible, hidden = targets[0]
    assert hidden.shape == (3, 7) and visible.shape == (3, 5)  # 60% of 12
    assert (torch.cat([hidden, visible], 1).sort().values == torch.arange(12)).all()
    assert encoded[0].shape == (3, 5, 16)
    covered = torch.zeros(3, 12, dtype=torch.bool).scatter(1, hidden, True)
    changed = loss(in_patches(shown, covered, lambda one: one.flip(0) ** 2))
    assert torch.equal(encoded[1], encoded[0])
    assert not torch.isclose(changed, expected)
    loss(in_patches(shown, ~covered, lambda one: one.flip(0) ** 2))
    assert not torch.isclose(encoded[2], encoded[0]).any(2).all()

    painted = paint(encoded[0], visible, hidden)
    cut = functional.unfold(shown, 4, stride=4).transpose(1, 2)
    wanted = torch.stack([cut[number][hidden[number]] for number in range(3)])
    if normalised:
        deviation = (wanted.var(2, keepdim=True) + 1e-6).sqrt()
        wanted = (wanted - wanted.mean(2, keepdim=True)) / deviation
    torch.testing.assert_close((painted - wanted).pow(2).mean(), expected)


def test_gradients_reach_each_weight_of_an_autoencoder() -> None:
    module = autoencoder("vit_token")
    module.training_step({"image": images(3)}, 0).backward()
    assert all(weight.grad is not None for weight in module.parameters())
    assert "positions" not in module.state_dict()


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_something_is_hidden_and_something_visible(fraction: float) -> None:
    module = autoencoder(masked_fraction=fraction)
    assert module.masked_count == (1 if fraction < 0.5 else 11)
    assert module._loss(images(2)).isfinite()


def test_a_masked_autoencoder_names_the_network_that_it_needs() -> None:
    with pytest.raises(JobError, match="CNN does not have: choose model vit"):
        MaskedAutoencoder(network("cnn"), INFO, **AUTOENCODER)
    with pytest.raises(JobError, match="a single patch: reduce the model's patch_pixels"):
        MaskedAutoencoder(network("vit", (3, 4, 4)), DataInfo(shape=(3, 4, 4)), **AUTOENCODER)
    with pytest.raises(JobError, match="decoder_width is 6: choose a multiple of 4"):
        autoencoder(decoder_width=6)
