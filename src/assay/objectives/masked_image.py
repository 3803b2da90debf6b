"""Masked image modelling for any backbone: reconstruct masked patches, without labels."""

import math
from typing import Annotated

import pytorch_lightning as pl
import torch
from annotated_types import Gt, Lt
from torch import Tensor, nn

from assay.runs.data_info import DataInfo

MASK_VALUE = -0.5  # outside the range of pixels, 0 to 1


class MaskedImage(pl.LightningModule):
    """Mean squared error on the masked pixels, decoded from the feature vector.

    Source: after He et al., Masked autoencoders are scalable vision learners (CVPR 2022), but the
    network sees the whole image, with masked patches filled with a constant.
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
        patch_pixels: Annotated[int, Gt(0)] = 4,
        masked_fraction: Annotated[float, Gt(0), Lt(1)] = 0.6,
        hidden_features: Annotated[int, Gt(0)] = 256,
    ) -> None:
        """Put a decoder on a backbone.

        Args:
            backbone: images (n, channels, height, width) -> features (n, `features`).
            info: of the data set.
            patch_pixels: side of a masked patch in pixels.
            masked_fraction: fraction of an image's patches that is masked.
            hidden_features: width of the decoder's hidden layer.
        """
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
        mask = self._mask(images)
        visible = images.masked_fill(mask, MASK_VALUE)
        decoded = self.decoder(self.backbone(visible)).view_as(images)
        return ((decoded - images).pow(2) * mask).sum() / mask.expand_as(images).sum()

    def _mask(self, images: Tensor) -> Tensor:
        """Draw a mask with the same number of patches in each image: (n, 1, height, width)."""
        count, _, height, width = images.shape
        rows, columns = (math.ceil(size / self.patch_pixels) for size in (height, width))
        order = torch.rand(count, rows * columns, device=images.device).argsort(1)
        patches = order < max(1, round(rows * columns * self.masked_fraction))
        mask = patches.view(count, 1, rows, columns)
        for axis in (2, 3):
            mask = mask.repeat_interleave(self.patch_pixels, axis)
        return mask[:, :, :height, :width]
