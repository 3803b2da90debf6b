"""Classification of images and texts."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.functional.classification import multiclass_calibration_error

from assay import finetune
from assay.models import gpt
from assay.objectives import classification
from assay.objectives.classification import Classification
from assay.runs.data_info import DataInfo
from assay.runs.errors import JobError


@settings(deadline=None, max_examples=30)
@given(count=st.integers(1, 60), classes=st.integers(2, 12), seed=st.integers(0, 999),
       sharpness=st.floats(0.1, 5))  # fmt: skip
def test_the_calibration_error_equals_that_of_torchmetrics(
    count: int, classes: int, seed: int, sharpness: float
) -> None:
    random = torch.Generator().manual_seed(seed)
    probabilities = (sharpness * torch.randn(count, classes, generator=random)).softmax(1)
    label = torch.randint(classes, (count,), generator=random)
    confidence, predicted = probabilities.max(1)
    error = classification.calibration_error(confidence.numpy(), (predicted == label).numpy())
    expected = multiclass_calibration_error(probabilities, label, classes, n_bins=15)
    assert error == pytest.approx(float(expected), abs=1e-5)


def test_confident_correct_predictions_are_calibrated_and_wrong_ones_are_not() -> None:
    certain = np.ones(4)
    assert classification.calibration_error(certain, np.ones(4, bool)) == 0
    assert classification.calibration_error(certain, np.zeros(4, bool)) == 1
    assert classification.calibration_error(0 * certain, np.zeros(4, bool)) == 0


class Fixed(nn.Module):
    """Features that are the input."""

    features = 12

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs


def classifier(classes: int, info: DataInfo | None = None, backbone: nn.Module | None = None,
               **changes: object) -> Classification:  # fmt: skip
    torch.manual_seed(0)
    options = {"label_smoothing": 0.0, "augmentation": 0.0, **changes}
    return Classification(
        backbone or Fixed(), (info or DataInfo()) | {"classes": classes}, **options
    ).eval()


@settings(deadline=None, max_examples=30)
@given(classes=st.integers(2, 12), count=st.integers(1, 20), seed=st.integers(0, 99),
       ties=st.booleans())  # fmt: skip
def test_top5_accuracy_counts_classes_among_the_five_most_probable(
    classes: int, count: int, seed: int, ties: bool
) -> None:
    random = torch.Generator().manual_seed(seed)
    module = classifier(classes)
    logits = torch.randn(count, classes, generator=random)
    logits = logits.round() if ties else logits
    module.forward = lambda inputs: logits
    batch = {"image": logits, "label": torch.randint(classes, (count,), generator=random)}
    columns = {name: value.numpy() for name, value in module.predict_step(batch, 0).items()}
    order = logits.sort(dim=1, descending=True, stable=True).indices[:, :5]
    right = (order == batch["label"].unsqueeze(1)).any(1)
    measured = module.metrics(columns)
    assert measured["top5_accuracy"] == pytest.approx(float(right.float().mean()))
    assert measured["top5_accuracy"] >= measured["accuracy"]
    assert classes > 5 or measured["top5_accuracy"] == 1
    assert set(measured) == set(Classification.METRICS)
    assert all(type(value) is float and np.isfinite(value) for value in measured.values())
    assert ((columns["rank"] == 1) == (columns["predicted"] == columns["label"])).all()


TEXT = DataInfo(input="text", vocab_size=11, padding=0)
GPT = {
    "layers": 1,
    "heads": 2,
    "width": 12,
    "context_length": 20,
    "dropout": 0.0,
    "tie_embeddings": True,
}


def reader(positions: str = "rotary") -> nn.Module:
    torch.manual_seed(0)
    return gpt.build(TEXT, **GPT, positions=positions)


@pytest.mark.parametrize("positions", ["rotary", "learned"])
@settings(deadline=None, max_examples=20)
@given(length=st.integers(0, 6), shorter=st.integers(0, 6), more=st.integers(0, 9))
def test_longer_padding_changes_no_logit_of_a_text(
    positions: str, length: int, shorter: int, more: int
) -> None:
    module = classifier(3, TEXT, reader(positions))
    tokens = torch.randint(1, 11, (2, length + 1), generator=torch.Generator().manual_seed(length))
    tokens[0, min(length, shorter) + 1 :] = 0
    logits = module(functional.pad(tokens, (0, more)))
    torch.testing.assert_close(logits, module(tokens))
    alone = tokens[:1, : min(length, shorter) + 1]
    torch.testing.assert_close(logits[:1], module(alone))
    assert not torch.allclose(logits[0], logits[1])


def test_texts_without_padding_and_empty_texts_are_classified() -> None:
    tokens = torch.randint(11, (4, 5), generator=torch.Generator().manual_seed(0))
    plain = classifier(3, TEXT | {"padding": None}, reader())
    expected = plain.head(plain.backbone(tokens).mean(1))
    torch.testing.assert_close(plain(tokens), expected)
    padded = classifier(3, TEXT, reader())
    assert padded(torch.zeros(2, 5, dtype=torch.long)).isfinite().all()
    loss = padded.training_step({"tokens": tokens, "label": torch.tensor([0, 1, 2, 0])}, 0)
    assert loss.isfinite()


@pytest.mark.parametrize(
    "change", [{"augmentation": 1.0}, {"horizontal_flip": True}, {"random_crop_padding": 1}]
)
def test_augmentations_are_refused_for_texts(change: dict) -> None:
    with pytest.raises(JobError, match="the data are texts: set augmentation: 0"):
        classifier(3, TEXT, reader(), **change)


def test_data_without_labels_are_refused() -> None:
    with pytest.raises(JobError, match="needs labels, and the data set has none"):
        Classification(reader(), DataInfo(input="text"), label_smoothing=0.0, augmentation=0.0)
    with pytest.raises(JobError, match="labels_per_class: 3: the objective reads no labels"):
        finetune.subsample_labels({"tokens": torch.zeros(4, 2)}, 3, 0)
