"""Classification of images and texts, from labels."""

from typing import Annotated

import numpy as np
import pytorch_lightning as pl
import torch
from annotated_types import Ge, Lt
from torch import Tensor, nn
from torch.nn import functional

from assay.nn import augmentations
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError

TOP_K = 5
CALIBRATION_BINS = 15


class Classification(pl.LightningModule):
    """Cross-entropy of a linear head on normalised features.

    Batch norm without learned scale and bias normalises the features, as in the linear probes of
    He et al., Masked autoencoders are scalable vision learners (2022), so that one learning rate
    suits features of any scale.

    The features of a text are the mean over its tokens except padding. This suits causal models
    too: they train the last token's features to predict the next token, and the mean includes all.
    """

    INPUTS = ("image", "text")
    FIELDS = ("input", "label")
    MONITOR = "validation_accuracy"
    MODE = "max"
    SMALLEST_BATCH = 2  # batch norm needs two examples
    METRICS = ("accuracy", "top5_accuracy", "loss", "calibration_error")

    def __init__(
        self,
        backbone: nn.Module,
        info: DataInfo,
        *,
        label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0,
        augmentation: Annotated[float, Ge(0)] = 0.0,
        horizontal_flip: bool = False,
        random_crop_padding: Annotated[int, Ge(0)] = 0,
    ) -> None:
        """Put a new head on a backbone.

        Args:
            backbone: images (n, channels, height, width) or tokens (n, t) -> features (n,
                `features`) or (n, t, `features`).
            info: of the data set.
            label_smoothing: fraction of each target that is distributed over all classes.
            augmentation: strength of the random changes of images, see `augmentations.augment`.
            horizontal_flip: flip half of the images horizontally.
            random_crop_padding: translate each image by up to this many pixels.

        Raises:
            JobError: the data have no labels, or the data are texts and augmentation is set.
        """
        super().__init__()
        if not info.has_labels:
            what = "objective classification: needs labels, and the data set has none"
            raise JobError(f"{what}: choose another data set", ExitCode.DATA)
        self.input = info.input_field
        self.padding = info.padding
        if self.input == "tokens" and (augmentation or horizontal_flip or random_crop_padding):
            raise JobError(
                "objective classification: augmentation, horizontal_flip and random_crop_padding "
                "change images, but the data are texts: set augmentation: 0.0",
                ExitCode.DATA,
            )
        self.backbone = backbone
        self.head = nn.Sequential(
            nn.BatchNorm1d(backbone.features, affine=False),
            nn.Linear(backbone.features, info.classes),
        )
        self.label_smoothing = label_smoothing
        self.augmentation = augmentation
        self.augmentations = {
            "horizontal_flip": horizontal_flip,
            "random_crop_padding": random_crop_padding,
        }

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the logits (n, classes) of images or tokens."""
        features = self.backbone(inputs)
        if self.input == "tokens":
            features = _mean_over_tokens(features, inputs, self.padding)
        return self.head(features)

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        inputs = batch[self.input]
        if self.input == "image":
            inputs = augmentations.augment(inputs, self.augmentation, **self.augmentations)
        return functional.cross_entropy(
            self(inputs), batch["label"], label_smoothing=self.label_smoothing
        )

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        logits, label = self(batch[self.input]), batch["label"]
        metrics = {
            "validation_accuracy": (logits.argmax(1) == label).float().mean(),
            "validation_loss": functional.cross_entropy(logits, label),
        }
        self.log_dict(metrics, batch_size=len(label))

    def predict_step(self, batch: dict[str, Tensor], index: int) -> dict[str, Tensor]:
        """Return the columns of the predictions table, each (n,).

        `rank` is the rank of the true class by probability, from 1.
        """
        logits, label = self(batch[self.input]), batch["label"]
        confidence, predicted = logits.softmax(1).max(1)
        return {
            "label": label,
            "predicted": predicted,
            "confidence": confidence,
            "rank": _rank(logits, label),
            "loss": functional.cross_entropy(logits, label, reduction="none"),
        }

    @staticmethod
    def metrics(predictions: dict[str, np.ndarray]) -> dict[str, float]:
        """Compute metrics from the predictions table.

        Returns:
            `accuracy` (fraction): the most probable class is the true one; `top5_accuracy`
            (fraction): the true class is among the five most probable; `loss`: mean cross-entropy
            in nats; `calibration_error`: see `calibration_error`.
        """
        correct = predictions["label"] == predictions["predicted"]
        return {
            "accuracy": float(correct.mean()),
            "top5_accuracy": float((predictions["rank"] <= TOP_K).mean()),
            "loss": float(predictions["loss"].mean()),
            "calibration_error": calibration_error(predictions["confidence"], correct),
        }


def calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    """Compute the expected calibration error with 15 bins of equal width, a fraction.

    Source: Guo et al., On calibration of modern neural networks (ICML 2017).

    Args:
        confidence: probability of the predicted class (n,).
        correct: whether the prediction is correct (n,).
    """
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS) - 1, 0, CALIBRATION_BINS - 1)
    gaps = np.bincount(bins.astype(np.int64), weights=confidence - correct)
    return float(np.abs(gaps).sum() / len(confidence))


def _mean_over_tokens(features: Tensor, tokens: Tensor, padding: int | None) -> Tensor:
    """Average features over the tokens that are not padding: (n, t, features) -> (n, features)."""
    if padding is None:
        return features.mean(1)
    mask = (tokens != padding).unsqueeze(2)
    return features.masked_fill(~mask, 0).sum(1) / mask.sum(1).clamp(min=1)  # a text may be empty


def _rank(logits: Tensor, label: Tensor) -> Tensor:
    """Rank the label's logit among all, from 1: (n,). The first of equal logits ranks first."""
    true = logits.gather(1, label.unsqueeze(1))
    is_before = torch.arange(logits.shape[1], device=logits.device) < label.unsqueeze(1)
    return 1 + ((logits > true) | ((logits == true) & is_before)).sum(1)
