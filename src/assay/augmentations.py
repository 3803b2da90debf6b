"""Random changes of images that keep what they show."""

import math

import torch
from torch import Tensor
from torch.nn import functional


def vary(images: Tensor, strength: float = 1.0) -> Tensor:
    """Turn, shift, scale, shear, brighten, blur with noise and partly cover each image by itself.

    At strength 1: turns up to 15 degrees, shifts up to an eighth of the width, scales and shears
    up to 15%, contrast up to 20%, Gaussian noise of 0.05, and in half of the images a black square
    of three eighths of the width.

    Args:
        images: (n, channels, height, width) with values from 0 to 1.
        strength: a factor on all of these; 0 leaves the images as they are.

    Returns:
        New images of the same shape.
    """
    if strength == 0:
        return images
    moved = functional.grid_sample(
        images,
        functional.affine_grid(_affine(images, strength), list(images.shape), align_corners=False),
        align_corners=False,
    )
    contrast = 1 + 0.2 * strength * _uniform(images, len(images), 1, 1, 1)
    noise = 0.05 * strength * torch.randn_like(images)
    return (moved * contrast + noise) * ~_covered(images, strength)


def _affine(images: Tensor, strength: float) -> Tensor:
    """Random affine maps (n, 2, 3)."""
    angle, scale, shear, right, down = _uniform(images, 5, len(images)) * strength
    angle, scale, shear = angle * math.radians(15), 1 + 0.15 * scale, 0.15 * shear
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    first = torch.stack([cosine, shear / scale - sine, 0.25 * right], 1)
    second = torch.stack([sine, cosine, 0.25 * down], 1)
    return torch.stack([first, second], 1)


def _covered(images: Tensor, strength: float) -> Tensor:
    """Which pixels lie under the black square: (n, 1, height, width)."""
    count, _, height, width = images.shape
    side = max(1, round(width * 3 / 8))
    top = torch.randint(0, height - side + 1, (count, 1, 1, 1), device=images.device)
    left = torch.randint(0, width - side + 1, (count, 1, 1, 1), device=images.device)
    row = torch.arange(height, device=images.device).view(1, 1, -1, 1) - top
    column = torch.arange(width, device=images.device).view(1, 1, 1, -1) - left
    inside = (row >= 0) & (row < side) & (column >= 0) & (column < side)
    chosen = torch.rand(count, 1, 1, 1, device=images.device) < 0.5 * strength
    return inside & chosen


def _uniform(images: Tensor, *shape: int) -> Tensor:
    """Random numbers from -1 to 1 on the images' device."""
    return torch.rand(*shape, device=images.device) * 2 - 1
