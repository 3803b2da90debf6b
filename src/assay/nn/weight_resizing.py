"""Pretrained weights made to fit images of another number of channels or another size."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Staged(nn.Module):
    """A convolutional network whose `stages` begin with a convolution of the image."""

    stages: nn.Sequential

    @property
    def blocks(self) -> list[nn.Module]:
        """Its stages, from input to output."""
        return list(self.stages)

    def fitted(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a network for images of other channels, made to fit this one."""
        first = "stages.0.0.weight"
        channels = self.stages[0][0].in_channels
        return {**weights, first: to_channels(weights[first], channels)}


@torch.no_grad()
def to_channels(weight: Tensor, channels: int) -> Tensor:
    """The first layer's weight, for images of another number of channels.

    The weights of the old channels are added up and shared equally among the new ones, so that an
    image whose channels are all alike gives the same features as before: colour -> grey is their
    sum, grey -> colour a third for each.

    Args:
        weight: (outputs, channels before, ...).

    Returns:
        (outputs, `channels`, ...); `weight` itself where it fits already.
    """
    if weight.shape[1] == channels:
        return weight
    shape = [-1 if axis != 1 else channels for axis in range(weight.dim())]
    return (weight.sum(1, keepdim=True) / channels).expand(shape).contiguous()


@torch.no_grad()
def to_grid(positions: Tensor, rows: int, columns: int) -> Tensor:
    """Position embeddings for another grid of patches, by bicubic interpolation.

    It is not for training: CUDA's gradient of it is not deterministic.

    Args:
        positions: (rows before, columns before, width).

    Returns:
        (`rows`, `columns`, width); `positions` itself where it fits already.
    """
    if positions.shape[:2] == (rows, columns):
        return positions
    planes = positions.permute(2, 0, 1).unsqueeze(0)
    resized = functional.interpolate(planes, (rows, columns), mode="bicubic", align_corners=False)
    return resized[0].permute(1, 2, 0).contiguous()
