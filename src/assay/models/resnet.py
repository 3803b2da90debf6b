"""ResNet-9: a residual network of eight convolutions that learns small images in few epochs.

After the final network of David Page, How to train your ResNet, part 8: Bag of tricks (2019),
https://github.com/davidcpage/cifar10-fast, without its ghost batch norm and its fixed first layer.
It pools before batch norm; batch norm learns biases but no scales, which the next layer's would
undo.

Every kernel is deterministic on CUDA: adaptive pooling and reflection padding are not, and are
avoided.
"""

from typing import Annotated

import torch
from annotated_types import Gt, Le
from torch import Tensor, nn
from torch.nn import functional

from assay.nn.weight_resizing import StagedNetwork
from assay.runs.data_info import DataInfo

INPUTS = ("image",)
MIN_IMAGE_PIXELS = 8  # pooling halves an image three times


class ResNet(StagedNetwork):
    """Images (n, channels, height, width) -> features (n, `features`)."""

    def __init__(self, channels: int, width: int, features: int) -> None:
        super().__init__()
        self.features = features
        self.stages = nn.Sequential(
            _stage(channels, width),
            _stage(width, 2 * width, pool=True),
            ResidualBlock(2 * width),
            _stage(2 * width, 4 * width, pool=True),
            _stage(4 * width, features, pool=True),
            ResidualBlock(features),
        ).to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stages(images.contiguous(memory_format=torch.channels_last))
        # `max_pool2d` stores the indices of the maxima. `amax` looks for them in the backward pass,
        # where compiled code, which rounds differently, may find none and return NaN gradients.
        return functional.max_pool2d(x, x.shape[2:]).flatten(1)


class ResidualBlock(nn.Module):
    """Adds the output of two stages to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(_stage(channels, channels), _stage(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class BiasOnlyBatchNorm(nn.BatchNorm2d):
    """Batch norm that learns a bias and keeps its scale at 1."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        del self.weight
        self.register_buffer("weight", torch.ones(channels))


def _stage(inputs: int, outputs: int, pool: bool = False) -> nn.Module:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    pooling = [nn.MaxPool2d(2)] if pool else []
    return nn.Sequential(convolution, *pooling, BiasOnlyBatchNorm(outputs), nn.CELU(0.3))


def build(
    info: DataInfo,
    *,
    width: Annotated[int, Gt(0), Le(4096)] = 64,
    features: Annotated[int, Gt(0), Le(4096)] = 512,
) -> nn.Module:
    """Build the backbone for images of shape `info.shape`.

    Args:
        info: of the data set.
        width: number of channels of the first stage; the next ones have two and four times as many.
        features: number of channels of the last stage; the length of the feature vector.

    Raises:
        ValueError: the images are smaller than 8 x 8 pixels.
    """
    channels, *pixels = info.shape
    if min(pixels) < MIN_IMAGE_PIXELS:
        raise ValueError(
            f"model resnet: the images have {pixels[0]} x {pixels[1]} pixels: choose images of at "
            f"least {MIN_IMAGE_PIXELS} x {MIN_IMAGE_PIXELS}, or another model"
        )
    return ResNet(channels, width, features)
