"""Small convolutional network: four 3x3 stages, two with stride 2, then global average pooling."""

import math
from typing import Annotated

import torch
from annotated_types import Gt, Le
from torch import Tensor, nn

from assay.nn.weight_resizing import StagedNetwork
from assay.runs.data_info import DataInfo

INPUTS = ("image",)


class CNN(StagedNetwork):
    """Images (n, channels, height, width) -> features (n, `features`)."""

    def __init__(self, channels: int, width: int, features: int) -> None:
        super().__init__()
        self.features = features
        self.stages = nn.Sequential(
            _stage(channels, width, stride=1),
            _stage(width, 2 * width, stride=2),
            _stage(2 * width, 2 * width, stride=1),
            _stage(2 * width, features, stride=2),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.stages(images).mean((2, 3))


def _stage(inputs: int, outputs: int, stride: int) -> nn.Module:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(math.gcd(8, outputs), outputs), nn.GELU())


def build(
    info: DataInfo,
    *,
    width: Annotated[int, Gt(0), Le(4096)] = 32,
    features: Annotated[int, Gt(0), Le(4096)] = 128,
) -> nn.Module:
    """Build the backbone for images of shape `info.shape`.

    Args:
        info: of the data set.
        width: number of channels of the first stage; the next two have twice as many.
        features: number of channels of the last stage; the length of the feature vector.
    """
    network = CNN(info.shape[0], width, features)
    return network.to(memory_format=torch.channels_last)  # faster convolutions
