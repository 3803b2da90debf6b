"""The masked autoencoder."""

from collections.abc import Callable

import pytest
import torch
from support.image_models import AUTOENCODER, INFO, images, network
from torch import Tensor
from torch.nn import functional

from assay.objectives.masked_autoencoder import MaskedAutoencoder
from assay.runs.data_info import DataInfo
from assay.runs.errors import JobError


def autoencoder(model: str = "vit", **changes: object) -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(network(model), INFO, **{**AUTOENCODER, **changes}).eval()


def in_patches(shown: Tensor, masked: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Images in which some patches, (n, patches) by truth, are changed."""
    mask = masked.view(-1, 1, 4, 3).repeat_interleave(4, 2).repeat_interleave(4, 3)
    return torch.where(mask, change(shown), shown)


@pytest.mark.parametrize("model", ["vit", "vit_token"])
@pytest.mark.parametrize("normalised", [False, True])
def test_masked_patches_do_not_reach_the_encoder_and_only_they_count(
    model: str, normalised: bool
) -> None:
    module, shown = autoencoder(model, normalised=normalised), images(3)
    encoded, targets = [], []
    encode = module.backbone.encode
    module.backbone.encode = lambda patches: encoded.append(encode(patches)) or encoded[-1]
    reconstruct = module._reconstruct
    module._reconstruct = lambda *arguments: targets.append(arguments) or reconstruct(*arguments)

    def loss(seen: Tensor) -> Tensor:
        torch.manual_seed(5)
        return module._loss(seen)

    expected = loss(shown)
    _, visible, masked = targets[0]
    assert masked.shape == (3, 7) and visible.shape == (3, 5)  # 60% of 12
    assert (torch.cat([masked, visible], 1).sort().values == torch.arange(12)).all()
    assert encoded[0].shape == (3, 5, 16)
    mask = torch.zeros(3, 12, dtype=torch.bool).scatter(1, masked, True)
    changed = loss(in_patches(shown, mask, lambda one: one.flip(0) ** 2))
    assert torch.equal(encoded[1], encoded[0])
    assert not torch.isclose(changed, expected)
    loss(in_patches(shown, ~mask, lambda one: one.flip(0) ** 2))
    assert not torch.isclose(encoded[2], encoded[0]).any(2).all()

    reconstructed = reconstruct(encoded[0], visible, masked)
    patches = functional.unfold(shown, 4, stride=4).transpose(1, 2)
    target = torch.stack([patches[index][masked[index]] for index in range(3)])
    if normalised:
        deviation = (target.var(2, keepdim=True) + 1e-6).sqrt()
        target = (target - target.mean(2, keepdim=True)) / deviation
    torch.testing.assert_close((reconstructed - target).pow(2).mean(), expected)


def test_gradients_reach_each_weight_of_an_autoencoder() -> None:
    module = autoencoder("vit_token")
    module.training_step({"image": images(3)}, 0).backward()
    assert all(weight.grad is not None for weight in module.parameters())
    assert "positions" not in module.state_dict()


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_at_least_one_patch_is_masked_and_one_visible(fraction: float) -> None:
    module = autoencoder(masked_fraction=fraction)
    assert module.masked_count == (1 if fraction < 0.5 else 11)
    assert module._loss(images(2)).isfinite()


def test_an_error_names_the_model_that_has_patches() -> None:
    with pytest.raises(JobError, match="CNN does not have: choose model vit"):
        MaskedAutoencoder(network("cnn"), INFO, **AUTOENCODER)
    with pytest.raises(JobError, match="a single patch: reduce the model's patch_pixels"):
        MaskedAutoencoder(network("vit", (3, 4, 4)), DataInfo(shape=(3, 4, 4)), **AUTOENCODER)
    with pytest.raises(JobError, match="decoder_width is 6: choose a multiple of 4"):
        autoencoder(decoder_width=6)
