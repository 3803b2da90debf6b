"""A residual network of eight convolutions, made to learn small images in few epochs.

After the last network of David Page, How to train your ResNet, part 8: Bag of tricks (2019),
https://github.com/davidcpage/cifar10-fast, without its ghost batches and its fixed first layer. It
pools before it normalises, and normalisation has biases but no scales, which the next layer's
normalisation would undo.

Each kernel has a deterministic form on CUDA: adaptive pooling and reflected borders have none.
"""

from typing import Annotated

import torch
from annotated_types import Gt, Le
from torch import Tensor, nn
from torch.nn import functional

from assay.nn.weight_resizing import Staged
from assay.runs.data_info import DataInfo

INPUTS = ("image",)
SMALLEST_PIXELS = 8  # it halves an image three times


class ResidualNetwork(Staged):
    """Images (n, channels, height, width) -> features (n, `features`)."""

    def __init__(self, channels: int, width: int, features: int) -> None:
        super().__init__()
        self.features = features
        self.stages = nn.Sequential(
            _stage(channels, width),
            _stage(width, 2 * width, pooled=True),
            Residual(2 * width),
            _stage(2 * width, 4 * width, pooled=True),
            _stage(4 * width, features, pooled=True),
            Residual(features),
        ).to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stages(images.contiguous(memory_format=torch.channels_last))
        # It keeps where the greatest are. `amax` looks for them again in the backward pass, where
        # compiled code, which rounds less, may find none: its gradients are no numbers then.
        return functional.max_pool2d(x, x.shape[2:]).flatten(1)


class Residual(nn.Module):
    """Adds to its input what two stages make of it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.change = nn.Sequential(_stage(channels, channels), _stage(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.change(x)


class Normalization(nn.BatchNorm2d):
    """Batch normalisation that learns a bias and keeps its scale at one."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        del self.weight
        self.register_buffer("weight", torch.ones(channels))


def _stage(inputs: int, outputs: int, pooled: bool = False) -> nn.Module:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    pooling = [nn.MaxPool2d(2)] if pooled else []
    return nn.Sequential(convolution, *pooling, Normalization(outputs), nn.CELU(0.3))


def build(
    info: DataInfo,
    *,
    width: Annotated[int, Gt(0), Le(4096)],
    features: Annotated[int, Gt(0), Le(4096)],
) -> nn.Module:
    """Build the backbone for images of shape `info.shape`.

    Args:
        info: what the data set states about itself.
        width: channels of the first stage; the next ones have two and four times as many.
        features: channels of the last stage, the length of an image's feature vector.

    Raises:
        ValueError: the images are smaller than 8 x 8 pixels.
    """
    channels, *pixels = info.shape
    if min(pixels) < SMALLEST_PIXELS:
        raise ValueError(f"images of {pixels} pixels: resnet needs {SMALLEST_PIXELS} at least")
    return ResidualNetwork(channels, width, features)
