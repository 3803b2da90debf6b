"""VICReg: features that agree between two views of an image, without labels."""

from typing import Annotated

import pytorch_lightning as pl
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional

from assay.nn import augmentations
from assay.runs.data_info import DataInfo


class Vicreg(pl.LightningModule):
    """Weighted sum of the invariance, variance and covariance losses of two views.

    Source: Bardes, Ponce and LeCun, VICReg: Variance-Invariance-Covariance Regularization for
    Self-Supervised Learning (ICLR 2022).
    """

    INPUTS = ("image",)
    FIELDS = ("image",)
    MONITOR = "validation_loss"
    MODE = "min"
    SMALLEST_BATCH = 2  # batch norm needs two examples

    def __init__(
        self,
        backbone: nn.Module,
        info: DataInfo,
        *,
        embedding: Annotated[int, Gt(0)] = 2048,
        invariance: Annotated[float, Ge(0)] = 25.0,
        variance: Annotated[float, Ge(0)] = 25.0,
        covariance: Annotated[float, Ge(0)] = 1.0,
        augmentation: Annotated[float, Gt(0)] = 1.0,
        horizontal_flip: bool = False,
        random_crop_padding: Annotated[int, Ge(0)] = 0,
    ) -> None:
        """Put an expander on a backbone.

        Args:
            backbone: images (n, channels, height, width) -> features (n, `features`).
            info: of the data set.
            embedding: length of a view's embedding.
            invariance: weight of the mean squared difference between the two views' embeddings.
            variance: weight of the hinge loss that keeps each dimension's standard deviation at 1.
            covariance: weight of the squared covariances between dimensions.
            augmentation: strength of the random changes of views, see `augmentations.augment`.
            horizontal_flip: flip half of the views horizontally.
            random_crop_padding: translate each view by up to this many pixels.
        """
        super().__init__()
        self.backbone = backbone
        self.expander = nn.Sequential(
            nn.Linear(backbone.features, embedding),
            nn.BatchNorm1d(embedding),
            nn.ReLU(),
            nn.Linear(embedding, embedding),
        )
        self.loss_weights = {
            "invariance": invariance,
            "variance": variance,
            "covariance": covariance,
        }
        self.augmentation = augmentation
        self.augmentations = {
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
            "variance": (_variance_loss(first) + _variance_loss(second)) / 2,
            "covariance": _covariance_loss(first) + _covariance_loss(second),
        }
        return sum(self.loss_weights[name] * term for name, term in terms.items())

    def _view(self, images: Tensor) -> Tensor:
        return augmentations.augment(images, self.augmentation, **self.augmentations)


def _variance_loss(embeddings: Tensor) -> Tensor:
    """Compute the mean shortfall of each dimension's standard deviation below 1."""
    return functional.relu(1 - (embeddings.var(0) + 1e-4).sqrt()).mean()


def _covariance_loss(embeddings: Tensor) -> Tensor:
    """Compute the sum of squared covariances between dimensions, divided by their number."""
    count, dimensions = embeddings.shape
    centred = embeddings - embeddings.mean(0)
    covariance = centred.T @ centred / (count - 1)
    return (covariance.pow(2).sum() - covariance.diagonal().pow(2).sum()) / dimensions
