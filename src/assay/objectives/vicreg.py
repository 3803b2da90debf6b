"""Learning features that agree between two views of an image, without labels."""

from typing import Annotated

import pytorch_lightning as pl
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional

from assay.nn import augmentations
from assay.runs.data_info import DataInfo


class Vicreg(pl.LightningModule):
    """Variance, invariance and covariance of two views' embeddings.

    Source: Bardes, Ponce and LeCun, VICReg: Variance-Invariance-Covariance Regularization for
    Self-Supervised Learning (ICLR 2022).
    """

    INPUTS = ("image",)
    FIELDS = ("image",)
    MONITOR = "validation_loss"
    MODE = "min"
    SMALLEST_BATCH = 2  # statistics over a batch need two examples

    def __init__(
        self,
        backbone: nn.Module,
        info: DataInfo,
        *,
        embedding: Annotated[int, Gt(0)],
        invariance: Annotated[float, Ge(0)],
        variance: Annotated[float, Ge(0)],
        covariance: Annotated[float, Ge(0)],
        augmentation: Annotated[float, Gt(0)],
        horizontal_flip: bool = False,
        random_crop_padding: Annotated[int, Ge(0)] = 0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.expander = nn.Sequential(
            nn.Linear(backbone.features, embedding),
            nn.BatchNorm1d(embedding),
            nn.ReLU(),
            nn.Linear(embedding, embedding),
        )
        self.weights = {"invariance": invariance, "variance": variance, "covariance": covariance}
        self.augmentation = augmentation
        self.changes = {
            "horizontal_flip": horizontal_flip,
            "random_crop_padding": random_crop_padding,
        }

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        return self._loss(batch["image"])

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        self.log("validation_loss", self._loss(batch["image"]), batch_size=len(batch["image"]))

    def _loss(self, images: Tensor) -> Tensor:
        first, second = (self.expander(self.backbone(self._view(images))) for _ in range(2))
        terms = {
            "invariance": functional.mse_loss(first, second),
            "variance": (_variance(first) + _variance(second)) / 2,
            "covariance": _covariance(first) + _covariance(second),
        }
        return sum(self.weights[name] * term for name, term in terms.items())

    def _view(self, images: Tensor) -> Tensor:
        return augmentations.augment(images, self.augmentation, **self.changes)


def _variance(embeddings: Tensor) -> Tensor:
    """How far each dimension's standard deviation stays below 1, on average."""
    return functional.relu(1 - (embeddings.var(0) + 1e-4).sqrt()).mean()


def _covariance(embeddings: Tensor) -> Tensor:
    """The squared covariances between dimensions, summed, per dimension."""
    count, dimensions = embeddings.shape
    centred = embeddings - embeddings.mean(0)
    covariance = centred.T @ centred / (count - 1)
    return (covariance.pow(2).sum() - covariance.diagonal().pow(2).sum()) / dimensions
