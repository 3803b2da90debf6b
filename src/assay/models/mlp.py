"""A multilayer perceptron on the pixels of an image."""

import math
from typing import Literal

from torch import Tensor, nn

from assay.runs.data_info import DataInfo

INPUTS = ("image",)
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU}


class Perceptron(nn.Module):
    """Images (n, channels, height, width) -> features (n, last of `widths`)."""

    def __init__(self, inputs: int, widths: list[int], activation: type[nn.Module]) -> None:
        super().__init__()
        self.features = widths[-1]
        sizes = zip([inputs, *widths], widths, strict=False)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(before, after), activation()) for before, after in sizes
        )

    def forward(self, images: Tensor) -> Tensor:
        x = images.flatten(1)
        for block in self.blocks:
            x = block(x)
        return x


def build(info: DataInfo, *, widths: list[int], activation: Literal["relu", "gelu"]) -> nn.Module:
    """Build the backbone for images of shape `info.shape`.

    Args:
        info: what the data set states about itself.
        widths: neurons of each layer; the last ones are an image's feature vector.
        activation: the function after each layer.

    Raises:
        ValueError: there is no layer, or one without neurons.
    """
    if not widths or min(widths) < 1:
        raise ValueError(
            f"model mlp: widths is {widths}: a number above 0 for each layer is needed"
        )
    return Perceptron(math.prod(info.shape), widths, ACTIVATIONS[activation])
