"""Learning to name the class of an image or a text, from labels."""

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

TOP = 5
CALIBRATION_BINS = 15


class Classification(pl.LightningModule):
    """Cross-entropy on a linear head over normalised features.

    The features are normalised by batch statistics without learnt scale, as in the linear
    classifiers of He et al., Masked autoencoders are scalable vision learners (2022), so that one
    learning rate suits features of any scale.

    The features of a text are the mean over its tokens, padding left out. It suits causal models
    too: the last token's features were made to tell the next token, and the mean holds all of them.
    """

    INPUTS = ("image", "text")
    FIELDS = ("input", "label")
    MONITOR = "validation_accuracy"
    MODE = "max"
    SMALLEST_BATCH = 2  # statistics over a batch need two examples
    METRICS = ("accuracy", "top5_accuracy", "loss", "calibration_error")

    def __init__(
        self,
        backbone: nn.Module,
        info: DataInfo,
        *,
        label_smoothing: Annotated[float, Ge(0), Lt(1)],
        augmentation: Annotated[float, Ge(0)],
        horizontal_flip: bool = False,
        random_crop_padding: Annotated[int, Ge(0)] = 0,
    ) -> None:
        """Put a new head on a backbone.

        Args:
            backbone: images (n, channels, height, width) or tokens (n, t) -> features (n,
                `features`) or (n, t, `features`).
            info: what the data set states about itself.
            label_smoothing: the share of each target that is spread over all classes.
            augmentation: strength of the random changes of an image, see `augmentations.augment`.
            horizontal_flip: exchange left and right in half of the images.
            random_crop_padding: shift each image by up to so many pixels.

        Raises:
            JobError: the data have no labels, or are texts and images are to be changed.
        """
        super().__init__()
        if not info.has_labels:
            what = "objective classification: it learns labels, and the data have none"
            raise JobError(f"{what}: name other data", ExitCode.DATA)
        self.input = info.input_field
        self.padding = info.padding
        if self.input == "tokens" and (augmentation or horizontal_flip or random_crop_padding):
            what = "objective classification: augmentation, horizontal_flip and random_crop_padding change images, "
            raise JobError(f"{what}and the data are texts: set augmentation: 0.0", ExitCode.DATA)
        self.backbone = backbone
        self.head = nn.Sequential(
            nn.BatchNorm1d(backbone.features, affine=False),
            nn.Linear(backbone.features, info.classes),
        )
        self.label_smoothing = label_smoothing
        self.augmentation = augmentation
        self.changes = {
            "horizontal_flip": horizontal_flip,
            "random_crop_padding": random_crop_padding,
        }

    def forward(self, inputs: Tensor) -> Tensor:
        """Images or tokens -> logits (n, classes)."""
        features = self.backbone(inputs)
        if self.input == "tokens":
            features = _mean_of_text(features, inputs, self.padding)
        return self.head(features)

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        inputs = batch[self.input]
        if self.input == "image":
            inputs = augmentations.augment(inputs, self.augmentation, **self.changes)
        return functional.cross_entropy(
            self(inputs), batch["label"], label_smoothing=self.label_smoothing
        )

    def validation_step(self, batch: dict[str, Tensor], index: int) -> None:
        logits, label = self(batch[self.input]), batch["label"]
        measured = {
            "validation_accuracy": (logits.argmax(1) == label).float().mean(),
            "validation_loss": functional.cross_entropy(logits, label),
        }
        self.log_dict(measured, batch_size=len(label))

    def predict_step(self, batch: dict[str, Tensor], index: int) -> dict[str, Tensor]:
        """One value per example and column: what the table of predictions holds.

        `rank` is the place of the right class among all, by probability: 1 is the first.
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
        """Metrics from the table of predictions.

        Returns:
            `accuracy`: share of examples whose class was named; `top5_accuracy`: share whose class
            is among the five most probable, so 1 where there are no more than five; `loss`: mean
            cross-entropy (nats); `calibration_error`: see `calibration_error`.
        """
        right = predictions["label"] == predictions["predicted"]
        return {
            "accuracy": float(right.mean()),
            "top5_accuracy": float((predictions["rank"] <= TOP).mean()),
            "loss": float(predictions["loss"].mean()),
            "calibration_error": calibration_error(predictions["confidence"], right),
        }


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error: how far confidence and accuracy lie apart, over 15 equal bins.

    Source: Guo et al., On calibration of modern neural networks (ICML 2017).

    Args:
        confidence: probability of the predicted class (n,).
        right: whether that is the right class (n,).
    """
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS) - 1, 0, CALIBRATION_BINS - 1)
    gaps = np.bincount(bins.astype(np.int64), weights=confidence - right)
    return float(np.abs(gaps).sum() / len(confidence))


def _mean_of_text(features: Tensor, tokens: Tensor, padding: int | None) -> Tensor:
    """The mean over a text's own tokens: (n, t, features) -> (n, features)."""
    if padding is None:
        return features.mean(1)
    own = (tokens != padding).unsqueeze(2)
    return features.masked_fill(~own, 0).sum(1) / own.sum(1).clamp(min=1)  # a text may be empty


def _rank(logits: Tensor, label: Tensor) -> Tensor:
    """The place of the label's logit, from 1; of equal ones the first class comes first: (n,)."""
    right = logits.gather(1, label.unsqueeze(1))
    before = torch.arange(logits.shape[1], device=logits.device) < label.unsqueeze(1)
    return 1 + ((logits > right) | ((logits == right) & before)).sum(1)
