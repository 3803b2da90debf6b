"""SimCLR: contrastive learning of which two views show the same image, without labels."""

from typing import Annotated

import pytorch_lightning as pl
import torch
from annotated_types import Ge, Gt
from torch import Tensor, distributed, nn
from torch.nn import functional

from assay.nn import augmentations
from assay.runs.data_info import DataInfo


class Simclr(pl.LightningModule):
    """Normalised temperature-scaled cross-entropy (NT-Xent) of two views.

    Source: Chen et al., A simple framework for contrastive learning of visual representations
    (ICML 2020). Both views pass through the network in one batch. With several devices, each view
    is compared with the views of all devices. The loss increases with the batch size, because there
    are more images to confuse.
    """

    INPUTS = ("image",)
    FIELDS = ("image",)
    MONITOR = "validation_loss"
    MODE = "min"
    SMALLEST_BATCH = 2  # a view is contrasted with another image

    def __init__(
        self,
        backbone: nn.Module,
        info: DataInfo,
        *,
        embedding: Annotated[int, Gt(0)] = 128,
        temperature: Annotated[float, Gt(0)] = 0.5,
        augmentation: Annotated[float, Gt(0)] = 1.0,
        horizontal_flip: bool = False,
        random_crop_padding: Annotated[int, Ge(0)] = 0,
    ) -> None:
        """Put a projection head on a backbone.

        Args:
            backbone: images (n, channels, height, width) -> features (n, `features`).
            info: of the data set.
            embedding: length of a view's embedding.
            temperature: divides the cosine similarities.
            augmentation: strength of the random changes of views, see `augmentations.augment`.
            horizontal_flip: flip half of the views horizontally.
            random_crop_padding: translate each view by up to this many pixels.
        """
        super().__init__()
        self.backbone = backbone
        self.projector = nn.Sequential(
            nn.Linear(backbone.features, backbone.features),
            nn.ReLU(),
            nn.Linear(backbone.features, embedding),
        )
        self.temperature = temperature
        self.augmentation = augmentation
        self.augmentations = {
            "horizontal_flip": horizontal_flip,
            "random_crop_padding": random_crop_padding,
        }

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        embeddings = self._embeddings(batch["image"])
        if not (distributed.is_available() and distributed.is_initialized()):
            return nt_xent(embeddings, embeddings, 0, self.temperature)
        gathered = self.all_gather(embeddings, sync_grads=True).flatten(0, 1)
        return nt_xent(embeddings, gathered, self.global_rank, self.temperature)

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        embeddings = self._embeddings(batch["image"])
        loss = nt_xent(embeddings, embeddings, 0, self.temperature)
        self.log("validation_loss", loss, batch_size=len(batch["image"]))

    def _embeddings(self, images: Tensor) -> Tensor:
        """Embed two views of each image, first views first, as unit vectors: (2n, embedding)."""
        images = torch.cat([images, images])
        views = augmentations.augment(images, self.augmentation, **self.augmentations)
        return functional.normalize(self.projector(self.backbone(views)))


def nt_xent(local: Tensor, gathered: Tensor, rank: int, temperature: float) -> Tensor:
    """Compute NT-Xent of one device's views, each contrasted with all others.

    Args:
        local: unit vectors (2n, embedding) of n first views, then n second views.
        gathered: those of all devices, in the order of ranks (world size * 2n, embedding).
        rank: of the device that holds `local`.
        temperature: divides the cosine similarities.

    Returns:
        The mean over `local`; the mean over ranks is the loss of the whole batch.
    """
    count = len(local)
    row = torch.arange(count, device=local.device)
    own_column = rank * count + row
    partner_column = rank * count + (row + count // 2) % count
    columns = torch.arange(len(gathered), device=local.device)
    similarity = local @ gathered.T / temperature
    similarity = similarity.masked_fill(own_column.unsqueeze(1) == columns, -torch.inf)
    return functional.cross_entropy(similarity, partner_column)
