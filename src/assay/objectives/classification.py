"""Learning to name an image's class, from labels."""

from typing import Annotated, Any

import numpy as np
import pytorch_lightning as pl
from annotated_types import Ge, Lt
from torch import Tensor, nn
from torch.nn import functional

from assay import augmentations


class Classification(pl.LightningModule):
    """Cross-entropy on a linear head over normalised features.

    The features are normalised by batch statistics without learnt scale, as in the linear
    classifiers of He et al., Masked autoencoders are scalable vision learners (2022), so that one
    learning rate suits features of any scale.
    """

    FIELDS = ("image", "label")
    MONITOR = "validation_accuracy"
    MODE = "max"
    SMALLEST_BATCH = 2  # statistics over a batch need two examples
    METRICS = ("accuracy", "loss")

    def __init__(
        self,
        backbone: nn.Module,
        facts: dict[str, Any],
        *,
        label_smoothing: Annotated[float, Ge(0), Lt(1)],
        augmentation: Annotated[float, Ge(0)],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Sequential(
            nn.BatchNorm1d(backbone.features, affine=False),
            nn.Linear(backbone.features, facts["classes"]),
        )
        self.label_smoothing = label_smoothing
        self.augmentation = augmentation

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        logits = self(augmentations.vary(batch["image"], self.augmentation))
        return functional.cross_entropy(
            logits, batch["label"], label_smoothing=self.label_smoothing
        )

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        logits, label = self(batch["image"]), batch["label"]
        measured = {
            "validation_accuracy": (logits.argmax(1) == label).float().mean(),
            "validation_loss": functional.cross_entropy(logits, label),
        }
        self.log_dict(measured, batch_size=len(label))

    def predict_step(self, batch: dict[str, Tensor], index: int) -> dict[str, Tensor]:
        """One value per example and column: what the table of predictions holds."""
        logits, label = self(batch["image"]), batch["label"]
        confidence, predicted = logits.softmax(1).max(1)
        loss = functional.cross_entropy(logits, label, reduction="none")
        return {"label": label, "predicted": predicted, "confidence": confidence, "loss": loss}

    @staticmethod
    def metrics(predictions: dict[str, np.ndarray]) -> dict[str, float]:
        """Accuracy (a fraction) and mean cross-entropy (nats) from the table of predictions."""
        right = predictions["label"] == predictions["predicted"]
        return {"accuracy": float(right.mean()), "loss": float(predictions["loss"].mean())}
