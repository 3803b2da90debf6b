"""A vision transformer: an image as a sequence of square patches."""

import math
from typing import Annotated, Literal

import torch
from annotated_types import Gt, Le
from torch import Tensor, nn
from torch.nn import functional

from assay.nn import weight_resizing
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

INPUTS = ("image",)


class VisionTransformer(nn.Module):
    """Images (n, channels, height, width) -> features (n, `features`).

    Source: Dosovitskiy et al., An image is worth 16x16 words (ICLR 2021), with the mean over
    patches and sine-cosine positions of Beyer, Zhai and Kolesnikov, Better plain ViT baselines for
    ImageNet-1k (2022). Positions are learnt; they start from sines and cosines.

    Beyond what each backbone offers, an objective can work on patches: `embed` makes them, `encode`
    takes any of them, in any order, and `patches` gives the pixels that each stands for.

    Attributes:
        features: length of an image's feature vector, and of a patch's.
        grid: rows and columns of patches.
        patch_pixels: side of a patch.
        blocks: the transformer's layers.
    """

    def __init__(
        self, shape: tuple[int, int, int], patch_pixels: int, layers: int, heads: int, width: int,
        pool: str,
    ) -> None:  # fmt: skip
        super().__init__()
        channels, height, image_width = shape
        self.features, self.patch_pixels, self.pool = width, patch_pixels, pool
        self.grid = (height // patch_pixels, image_width // patch_pixels)
        self.positions = nn.Parameter(sine_cosine(*self.grid, width))
        if pool == "token":
            self.token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.projection = nn.Conv2d(channels, width, patch_pixels, stride=patch_pixels)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, images: Tensor) -> Tensor:
        x = self._through(self.embed(images))
        return x[:, 0] if self.pool == "token" else x.mean(1)

    def patches(self, images: Tensor) -> Tensor:
        """An image's patches, row by row: (n, patches, channels * patch_pixels^2)."""
        count, channels = images.shape[:2]
        (rows, columns), side = self.grid, self.patch_pixels
        cut = images.reshape(count, channels, rows, side, columns, side)
        return cut.permute(0, 2, 4, 1, 3, 5).reshape(count, rows * columns, -1)

    def embed(self, images: Tensor) -> Tensor:
        """An image's patches, each with its position: (n, patches, features)."""
        projected = self.projection(images).flatten(2).transpose(1, 2)
        return projected + self.positions.flatten(0, 1)

    def encode(self, patches: Tensor) -> Tensor:
        """Features of embedded patches, all or some of an image's: the same shape."""
        encoded = self._through(patches)
        return encoded[:, 1:] if self.pool == "token" else encoded

    def _through(self, x: Tensor) -> Tensor:
        if self.pool == "token":
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def fitted(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a network for images of other channels or another size, made to fit this one.

        Args:
            weights: a state dict.

        Raises:
            JobError: its patches have another number of pixels.
        """
        projection = weights["projection.weight"]
        found, wanted = projection.shape[2], self.patch_pixels
        if found != wanted:
            what = f"the pretrained vit has patches of {found} pixels, this one of {wanted}"
            raise JobError(f"{what}: set patch_pixels: {found}", ExitCode.DATA)
        channels = self.projection.in_channels
        return {
            **weights,
            "projection.weight": weight_resizing.to_channels(projection, channels),
            "positions": weight_resizing.to_grid(weights["positions"], *self.grid),
        }


class Block(nn.Module):
    """A layer of a transformer that normalises before attention and before its perceptron."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first_norm, self.second_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width)
        self.mixing = nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._attend(self.first_norm(x))
        return x + self.perceptron(self.second_norm(x))

    def _attend(self, x: Tensor) -> Tensor:
        parts = self.attention(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(*parts)
        return self.mixing(attended.transpose(1, 2).flatten(2))


def sine_cosine(rows: int, columns: int, width: int) -> Tensor:
    """Positions in a grid as sines and cosines of many wavelengths: (rows, columns, width).

    Half of the numbers tell the row, half the column.

    Source: Vaswani et al., Attention is all you need (2017), along two axes.

    Args:
        width: a multiple of 4.
    """
    frequency = 10_000.0 ** -(torch.arange(width // 4) / (width // 4))
    row, column = (
        torch.cat([angle.sin(), angle.cos()], 1)
        for angle in (torch.arange(size)[:, None] * frequency for size in (rows, columns))
    )
    grid = (rows, columns, width // 2)
    return torch.cat([row[:, None].expand(grid), column[None].expand(grid)], 2)


def build(
    info: DataInfo,
    *,
    patch_pixels: Annotated[int, Gt(0)],
    layers: Annotated[int, Gt(0), Le(1024)],
    heads: Annotated[int, Gt(0)],
    width: Annotated[int, Gt(0), Le(16384)],
    pool: Literal["mean", "token"],
) -> nn.Module:
    """Build the backbone for images of shape `info.shape`.

    Args:
        info: what the data set states about itself.
        patch_pixels: side of a patch; it divides both sides of an image.
        layers: transformer layers.
        heads: of attention, in each layer; a divisor of `width`.
        width: numbers that describe a patch, a multiple of 4; the length of the feature vector.
        pool: an image's features are the mean over its patches, or a learnt token's.

    Raises:
        ValueError: patches do not fill the images, or heads or positions do not fill `width`.
    """
    _check(info.shape, patch_pixels, heads, width)
    return VisionTransformer(info.shape, patch_pixels, layers, heads, width, pool)


def _check(shape: tuple[int, int, int], patch_pixels: int, heads: int, width: int) -> None:
    height, image_width = shape[1:]
    if height % patch_pixels or image_width % patch_pixels:
        sides = math.gcd(height, image_width)
        raise ValueError(
            f"model vit: patch_pixels is {patch_pixels}, but the images have {height} x "
            f"{image_width} pixels: a divisor of {sides} is needed"
        )
    if width % heads or width % 4:
        raise ValueError(
            f"model vit: width is {width}: a multiple of 4 and of heads ({heads}) is needed"
        )
