"""Vision transformer (ViT): treats an image as a sequence of square patches."""

import math
from typing import Annotated, Literal

import torch
from annotated_types import Gt, Le
from torch import Tensor, nn
from torch.nn import functional

from assay.nn.weight_resizing import adapt_input_channels, resample_positions
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

INPUTS = ("image",)


class VisionTransformer(nn.Module):
    """Images (n, channels, height, width) -> features (n, `features`).

    Source: Dosovitskiy et al., An image is worth 16x16 words (ICLR 2021), with the mean pooling and
    the sine-cosine positions of Beyer, Zhai and Kolesnikov, Better plain ViT baselines for
    ImageNet-1k (2022). Positions are learned, initialised with sines and cosines.

    Objectives that mask patches use three more methods: `patches` returns the pixels of each patch,
    `embed` the embedded patches, and `encode` the features of any subset of those, in any order.

    Attributes:
        features: length of the feature vector of an image and of a patch.
        grid: number of rows and columns of patches.
        patch_pixels: side of a patch in pixels.
        blocks: the transformer layers, from input to output.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        patch_pixels: int,
        layers: int,
        heads: int,
        width: int,
        pool: Literal["mean", "token"],
    ) -> None:
        super().__init__()
        channels, height, image_width = shape
        self.features, self.patch_pixels, self.pool = width, patch_pixels, pool
        self.grid = (height // patch_pixels, image_width // patch_pixels)
        self.position_embedding = nn.Parameter(sine_cosine_positions(*self.grid, width))
        if pool == "token":
            self.class_token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.patch_embedding = nn.Conv2d(channels, width, patch_pixels, stride=patch_pixels)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, images: Tensor) -> Tensor:
        x = self._transform(self.embed(images))
        return x[:, 0] if self.pool == "token" else x.mean(1)

    def patches(self, images: Tensor) -> Tensor:
        """Split images into patches, row by row: (n, patches, channels * patch_pixels^2)."""
        count, channels = images.shape[:2]
        (rows, columns), side = self.grid, self.patch_pixels
        split = images.reshape(count, channels, rows, side, columns, side)
        return split.permute(0, 2, 4, 1, 3, 5).reshape(count, rows * columns, -1)

    def embed(self, images: Tensor) -> Tensor:
        """Embed the patches of images and add their positions: (n, patches, features)."""
        embedded = self.patch_embedding(images).flatten(2).transpose(1, 2)
        return embedded + self.position_embedding.flatten(0, 1)

    def encode(self, patches: Tensor) -> Tensor:
        """Compute features of embedded patches, all or a subset: (n, patches, features)."""
        encoded = self._transform(patches)
        return encoded[:, 1:] if self.pool == "token" else encoded

    def _transform(self, x: Tensor) -> Tensor:
        if self.pool == "token":
            x = torch.cat([self.class_token.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def adapt_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Adapt pretrained weights to this network's channels and image size.

        Args:
            weights: state dict of a network for other images.

        Raises:
            JobError: its patches have another size.
        """
        name, kernel = "patch_embedding.weight", weights["patch_embedding.weight"]
        side = kernel.shape[2]
        if side != self.patch_pixels:
            raise JobError(
                f"the pretrained vit has patches of {side} pixels, this one of "
                f"{self.patch_pixels}: set patch_pixels: {side}",
                ExitCode.DATA,
            )
        channels, positions = self.patch_embedding.in_channels, weights["position_embedding"]
        return {
            **weights,
            name: adapt_input_channels(kernel, channels),
            "position_embedding": resample_positions(positions, *self.grid),
        }


class Block(nn.Module):
    """A pre-norm transformer layer: (n, tokens, width) -> (n, tokens, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def _attention(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(*qkv)
        return self.proj(attended.transpose(1, 2).flatten(2))


def sine_cosine_positions(rows: int, columns: int, width: int) -> Tensor:
    """Compute sine-cosine position embeddings of a grid: (rows, columns, width).

    The first half of each vector encodes the row, the second half the column.

    Source: Vaswani et al., Attention is all you need (2017), applied to two axes.

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
    patch_pixels: Annotated[int, Gt(0)] = 4,
    layers: Annotated[int, Gt(0), Le(1024)] = 12,
    heads: Annotated[int, Gt(0)] = 3,
    width: Annotated[int, Gt(0), Le(16384)] = 192,
    pool: Literal["mean", "token"] = "token",
) -> nn.Module:
    """Build the backbone for images of shape `info.shape`.

    Args:
        info: of the data set.
        patch_pixels: side of a patch in pixels; must divide both sides of the images.
        layers: number of transformer layers.
        heads: number of attention heads per layer; must divide `width`.
        width: length of a patch's embedding and of the feature vector; a multiple of 4.
        pool: features of an image: `mean` over its patches, or those of a learned class `token`.

    Raises:
        ValueError: `patch_pixels` does not divide the images, or `heads` or 4 not `width`.
    """
    _check(info.shape, patch_pixels, heads, width)
    return VisionTransformer(info.shape, patch_pixels, layers, heads, width, pool)


def _check(shape: tuple[int, int, int], patch_pixels: int, heads: int, width: int) -> None:
    height, image_width = shape[1:]
    if height % patch_pixels or image_width % patch_pixels:
        sides = math.gcd(height, image_width)
        raise ValueError(
            f"model vit: patch_pixels is {patch_pixels}, but the images have {height} x "
            f"{image_width} pixels: choose a divisor of {sides}"
        )
    if width % heads or width % 4:
        raise ValueError(
            f"model vit: width is {width}: choose a multiple of 4 and of heads ({heads})"
        )
