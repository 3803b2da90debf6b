"""Learning to fill in hidden patches of an image, without labels."""

import math
from typing import Annotated

import pytorch_lightning as pl
import torch
from annotated_types import Gt, Lt
from torch import Tensor, nn

from assay.runs.data_info import DataInfo


class MaskedImage(pl.LightningModule):
    """Mean squared error on the hidden pixels, decoded from the feature vector.

    Source: after He et al., Masked autoencoders are scalable vision learners (CVPR 2022), with a
    network that sees the whole image, its hidden patches filled with a constant.
    """

    INPUTS = ("image",)
    FIELDS = ("image",)
    MONITOR = "validation_loss"
    MODE = "min"

    def __init__(
        self,
        backbone: nn.Module,
        info: DataInfo,
        *,
        patch_pixels: Annotated[int, Gt(0)],
        masked_fraction: Annotated[float, Gt(0), Lt(1)],
        hidden_features: Annotated[int, Gt(0)],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = nn.Sequential(
            nn.Linear(backbone.features, hidden_features),
            nn.GELU(),
            nn.Linear(hidden_features, math.prod(info.shape)),
        )
        self.patch_pixels = patch_pixels
        self.masked_fraction = masked_fraction

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        return self._loss(batch["image"])

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        self.log("validation_loss", self._loss(batch["image"]), batch_size=len(batch["image"]))

    def _loss(self, images: Tensor) -> Tensor:
        hidden = self._hidden(images)
        decoded = self.decoder(self.backbone(images.masked_fill(hidden, -0.5))).view_as(images)
        return ((decoded - images).pow(2) * hidden).sum() / hidden.expand_as(images).sum()

    def _hidden(self, images: Tensor) -> Tensor:
        """Which pixels are hidden: (n, 1, height, width), the same share in each image."""
        count, _, height, width = images.shape
        rows, columns = (math.ceil(size / self.patch_pixels) for size in (height, width))
        order = torch.rand(count, rows * columns, device=images.device).argsort(1)
        patches = order < max(1, round(rows * columns * self.masked_fraction))
        mask = patches.view(count, 1, rows, columns)
        for axis in (2, 3):
            mask = mask.repeat_interleave(self.patch_pixels, axis)
        return mask[:, :, :height, :width]
