"""Learning to tell which two views show the same image, without labels."""

from typing import Annotated

import pytorch_lightning as pl
import torch
from annotated_types import Ge, Gt
from torch import Tensor, distributed, nn
from torch.nn import functional

from assay.nn import augmentations
from assay.runs.data_info import DataInfo


class Simclr(pl.LightningModule):
    """The normalised, temperature-scaled cross-entropy of two views (NT-Xent).

    Source: Chen et al., A simple framework for contrastive learning of visual representations
    (ICML 2020). Both views go through the network in one batch. With several devices each view is
    compared with the views on all of them. The loss grows with the batch: there is more to mix up.
    """

    INPUTS = ("image",)
    FIELDS = ("image",)
    MONITOR = "validation_loss"
    MODE = "min"
    SMALLEST_BATCH = 2  # a view needs another image to be told from

    def __init__(
        self,
        backbone: nn.Module,
        info: DataInfo,
        *,
        embedding: Annotated[int, Gt(0)],
        temperature: Annotated[float, Gt(0)],
        augmentation: Annotated[float, Gt(0)],
        horizontal_flip: bool = False,
        random_crop_padding: Annotated[int, Ge(0)] = 0,
    ) -> None:
        """Put a projection head on a backbone.

        Args:
            backbone: images (n, channels, height, width) -> features (n, `features`).
            info: what the data set states about itself.
            embedding: numbers that stand for a view in the comparison.
            temperature: what similarities, from -1 to 1, are divided by.
            augmentation: strength of the random changes of an image, see `augmentations.augment`.
            horizontal_flip: exchange left and right in half of the views.
            random_crop_padding: shift each view by up to so many pixels.
        """
        super().__init__()
        self.backbone = backbone
        self.projection = nn.Sequential(
            nn.Linear(backbone.features, backbone.features),
            nn.ReLU(),
            nn.Linear(backbone.features, embedding),
        )
        self.temperature = temperature
        self.augmentation = augmentation
        self.changes = {
            "horizontal_flip": horizontal_flip,
            "random_crop_padding": random_crop_padding,
        }

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        embeddings = self._embeddings(batch["image"])
        if not (distributed.is_available() and distributed.is_initialized()):
            return contrast(embeddings, embeddings, 0, self.temperature)
        everyone = self.all_gather(embeddings, sync_grads=True).flatten(0, 1)
        return contrast(embeddings, everyone, self.global_rank, self.temperature)

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        embeddings = self._embeddings(batch["image"])
        loss = contrast(embeddings, embeddings, 0, self.temperature)
        self.log("validation_loss", loss, batch_size=len(batch["image"]))

    def _embeddings(self, images: Tensor) -> Tensor:
        """Unit vectors of two views of each image, first views first: (2n, embedding)."""
        images = torch.cat([images, images])
        views = augmentations.augment(images, self.augmentation, **self.changes)
        return functional.normalize(self.projection(self.backbone(views)))


def contrast(own: Tensor, everyone: Tensor, rank: int, temperature: float) -> Tensor:
    """NT-Xent of one device's views, each against all others.

    Args:
        own: unit vectors (2n, embedding) of n first views, then n second views.
        everyone: those of all devices, in the order of ranks (ranks * 2n, embedding).
        rank: whose views `own` are.
        temperature: what similarities are divided by.

    Returns:
        The mean over `own`; the mean over ranks is the loss of the whole batch.
    """
    count = len(own)
    place = torch.arange(count, device=own.device)
    itself, partner = (rank * count + one for one in (place, (place + count // 2) % count))
    columns = torch.arange(len(everyone), device=own.device)
    similarity = own @ everyone.T / temperature
    similarity = similarity.masked_fill(itself.unsqueeze(1) == columns, -torch.inf)
    return functional.cross_entropy(similarity, partner)
