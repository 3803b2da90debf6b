"""A small convolutional network: four 3x3 stages, two of them with stride 2, then the mean."""

import math
from typing import Annotated

import torch
from annotated_types import Gt, Le
from torch import Tensor, nn

from assay.nn.weight_resizing import Staged
from assay.runs.data_info import DataInfo

INPUTS = ("image",)


class ConvolutionalNetwork(Staged):
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
    width: Annotated[int, Gt(0), Le(4096)],
    features: Annotated[int, Gt(0), Le(4096)],
) -> nn.Module:
    """Build the backbone for images of shape `info.shape`.

    Args:
        info: what the data set states about itself.
        width: channels of the first stage; the next two have twice as many.
        features: channels of the last stage, the length of an image's feature vector.
    """
    network = ConvolutionalNetwork(info.shape[0], width, features)
    return network.to(memory_format=torch.channels_last)  # convolutions are faster so
