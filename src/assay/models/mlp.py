"""Multilayer perceptron (MLP) on the pixels of an image."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from assay.runs.data_info import DataInfo

INPUTS = ("image",)
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU}


class MLP(nn.Module):
    """Images (n, channels, height, width) -> features (n, last of `widths`)."""

    def __init__(self, inputs: int, widths: Sequence[int], activation: type[nn.Module]) -> None:
        super().__init__()
        self.features = widths[-1]
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(nn.Linear(before, after), activation())
                for before, after in pairwise([inputs, *widths])
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.blocks(images.flatten(1))


def build(
    info: DataInfo,
    *,
    widths: Sequence[int] = (512, 512),
    activation: Literal["relu", "gelu"] = "relu",
) -> nn.Module:
    """Build the backbone for images of shape `info.shape`.

    Args:
        info: of the data set.
        widths: number of units of each layer; the last one is the length of the feature vector.
        activation: the function after each layer.

    Raises:
        ValueError: `widths` is empty or has a number below 1.
    """
    if not widths or min(widths) < 1:
        raise ValueError(f"model mlp: widths is {widths}: list a number above 0 for each layer")
    return MLP(math.prod(info.shape), widths, ACTIVATIONS[activation])
