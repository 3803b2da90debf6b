"""Random changes of images."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from assay.nn import augmentations
from assay.runs.errors import JobError


def images(count: int, shape: tuple[int, int, int] = (3, 16, 12)) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))


def test_without_flip_and_crop_no_random_numbers_are_drawn_for_them() -> None:
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


def test_half_of_the_images_are_flipped_and_no_pixel_is_lost() -> None:
    torch.manual_seed(0)
    batch = images(400)
    augmented = augmentations.augment(batch, 0.0, horizontal_flip=True)
    same, flipped = ((augmented == other).flatten(1).all(1) for other in (batch, batch.flip(3)))
    assert (same ^ flipped).all()
    assert 150 < int(flipped.sum()) < 250


@settings(deadline=None, max_examples=20)
@given(pixels=st.integers(1, 5), horizontal_flip=st.booleans(), channels=st.integers(1, 3),
       height=st.integers(6, 9), width=st.integers(6, 9))  # fmt: skip
def test_a_crop_is_a_window_of_the_image_padded_by_reflection(
    pixels: int, horizontal_flip: bool, channels: int, height: int, width: int
) -> None:
    torch.manual_seed(0)
    batch = images(8, (channels, height, width))
    augmented = augmentations.augment(
        batch, 0.0, horizontal_flip=horizontal_flip, random_crop_padding=pixels
    )
    padded = functional.pad(batch, [pixels] * 4, mode="reflect")
    crops = padded.unfold(2, height, 1).unfold(3, width, 1).flatten(2, 3).transpose(1, 2)
    crops = torch.cat([crops, crops.flip(-1)], 1) if horizontal_flip else crops
    matches = (crops == augmented.unsqueeze(1)).flatten(2).all(2)
    assert matches.any(1).all()
    assert len(matches.nonzero()[:, 1].unique()) > 1


def test_a_crop_as_large_as_the_image_is_refused() -> None:
    with pytest.raises(
        JobError, match="random_crop_padding is 12, but the images have 16 x 12 pixels"
    ):
        augmentations.augment(images(2), 0.0, random_crop_padding=12)
