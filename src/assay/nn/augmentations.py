"""Random changes of images that preserve what they show."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from assay.runs.errors import ExitCode, JobError

MAX_ROTATION_DEGREES = 15
MAX_SCALING = MAX_SHEAR = 0.15
MAX_TRANSLATION = 1 / 8  # of the image's side
MAX_CONTRAST = 0.2
NOISE_DEVIATION = 0.05
CUTOUT_SIDE = 3 / 8  # of the image's width


def augment(
    images: Tensor,
    strength: float = 1.0,
    *,
    horizontal_flip: bool = False,
    random_crop_padding: int = 0,
) -> Tensor:
    """Apply a random affine map, contrast change, noise and cutout to each image.

    At strength 1: rotation up to 15 degrees, translation up to an eighth of the image, scaling and
    shear up to 15%, contrast up to 20%, Gaussian noise with standard deviation 0.05, and in half of
    the images a cutout (a black square) of three eighths of the width.

    Args:
        images: (n, channels, height, width) with values from 0 to 1.
        strength: a factor on all of these changes; 0 disables them.
        horizontal_flip: flip half of the images horizontally.
        random_crop_padding: translate each image by up to this many whole pixels along both axes,
            as a crop from an image padded by reflection does. It takes less than a tenth of the
            time of the other changes.

    Returns:
        Images of the same shape.

    Raises:
        JobError: `random_crop_padding` is not smaller than both sides of the images.
    """
    if horizontal_flip or random_crop_padding:
        images = _flip_and_crop(images, horizontal_flip, random_crop_padding)
    if strength == 0:
        return images
    theta = _affine_matrices(images, strength)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    transformed = functional.grid_sample(images, grid, align_corners=False)
    contrast = 1 + MAX_CONTRAST * strength * _uniform(images, len(images), 1, 1, 1)
    noise = NOISE_DEVIATION * strength * torch.randn_like(images)
    return (transformed * contrast + noise) * ~_cutout_mask(images, strength)


def _flip_and_crop(images: Tensor, horizontal_flip: bool, padding: int) -> Tensor:
    """Flip and crop with a single gather of pixels."""
    count, channels, height, width = images.shape
    if padding >= min(height, width):
        raise JobError(
            f"random_crop_padding is {padding}, but the images have {height} x {width} pixels: "
            "choose less than the shorter side",
            ExitCode.DATA,
        )
    row, column = (torch.arange(size, device=images.device) for size in (height, width))
    if padding:
        down, right = torch.randint(-padding, padding + 1, (2, count, 1), device=images.device)
        row, column = _reflect(row + down, height), _reflect(column + right, width)
    if horizontal_flip:
        flipped = torch.rand(count, 1, device=images.device) < 0.5
        column = torch.where(flipped, width - 1 - column, column)
    index = row.view(-1, height, 1) * width + column.view(-1, 1, width)
    index = index.view(count, 1, -1).expand(-1, channels, -1)
    return images.reshape(count, channels, -1).gather(2, index).view(images.shape)


def _reflect(index: Tensor, size: int) -> Tensor:
    """Reflect indices outside 0 .. size - 1 at the border."""
    index = index.abs()
    return torch.where(index < size, index, 2 * (size - 1) - index)


def _affine_matrices(images: Tensor, strength: float) -> Tensor:
    """Draw an affine matrix for each image: (n, 2, 3), in the coordinates of `affine_grid`."""
    angle, scale, shear, right, down = _uniform(images, 5, len(images)) * strength
    angle = angle * math.radians(MAX_ROTATION_DEGREES)
    scale, shear = 1 + MAX_SCALING * scale, MAX_SHEAR * shear
    shift = 2 * MAX_TRANSLATION  # from -1 to 1 is the whole side
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    x = torch.stack([cosine, shear / scale - sine, shift * right], 1)
    y = torch.stack([sine, cosine, shift * down], 1)
    return torch.stack([x, y], 1)


def _cutout_mask(images: Tensor, strength: float) -> Tensor:
    """Draw which pixels a cutout hides: (n, 1, height, width), bool.

    Source: DeVries and Taylor, Improved regularization of convolutional neural networks with Cutout
    (2017).
    """
    count, _, height, width = images.shape
    side = max(1, round(width * CUTOUT_SIDE))
    top = torch.randint(0, height - side + 1, (count, 1, 1, 1), device=images.device)
    left = torch.randint(0, width - side + 1, (count, 1, 1, 1), device=images.device)
    row = torch.arange(height, device=images.device).view(1, 1, -1, 1) - top
    column = torch.arange(width, device=images.device).view(1, 1, 1, -1) - left
    inside = (row >= 0) & (row < side) & (column >= 0) & (column < side)
    applied = torch.rand(count, 1, 1, 1, device=images.device) < 0.5 * strength
    return inside & applied


def _uniform(images: Tensor, *shape: int) -> Tensor:
    """Draw numbers from -1 to 1 on the images' device."""
    return torch.rand(*shape, device=images.device) * 2 - 1
