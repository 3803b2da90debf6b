"""Adapt pretrained weights to images with another number of channels or another size."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class StagedNetwork(nn.Module):
    """A convolutional network made of `stages`, which start with a convolution of the image."""

    stages: nn.Sequential

    @property
    def blocks(self) -> list[nn.Module]:
        """The stages, from input to output."""
        return list(self.stages)

    def adapt_weights(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Adapt pretrained weights to this network's number of channels.

        Args:
            weights: state dict of a network for images with other channels.
        """
        name, channels = "stages.0.0.weight", self.stages[0][0].in_channels
        return {**weights, name: adapt_input_channels(weights[name], channels)}


@torch.no_grad()
def adapt_input_channels(weight: Tensor, channels: int) -> Tensor:
    """Adapt the first layer's weight to images with another number of channels.

    The sum over the old channels is divided equally among the new ones, so that an image with equal
    channels has the same features as before: RGB to grey is the sum, grey to RGB a third each.

    Args:
        weight: (outputs, old channels, ...).
        channels: of the new images.

    Returns:
        (outputs, `channels`, ...); `weight` itself if the number of channels is the same.
    """
    if weight.shape[1] == channels:
        return weight
    shape = [-1 if axis != 1 else channels for axis in range(weight.dim())]
    return (weight.sum(1, keepdim=True) / channels).expand(shape).contiguous()


@torch.no_grad()
def resample_positions(positions: Tensor, rows: int, columns: int) -> Tensor:
    """Resample position embeddings to another grid of patches, by bicubic interpolation.

    Do not use it in training: its gradient on CUDA is not deterministic.

    Args:
        positions: (old rows, old columns, width).
        rows: of the new grid.
        columns: of the new grid.

    Returns:
        (`rows`, `columns`, width); `positions` itself if the grid is the same.
    """
    if positions.shape[:2] == (rows, columns):
        return positions
    planes = positions.permute(2, 0, 1).unsqueeze(0)
    resized = functional.interpolate(planes, (rows, columns), mode="bicubic", align_corners=False)
    return resized[0].permute(1, 2, 0).contiguous()
