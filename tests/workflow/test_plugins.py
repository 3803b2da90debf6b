"""A data set, a network and an objective of one's own, a file each."""

import pytest
from support.checkout import Checkout, tiny_study
from workflow.test_workflow import metrics

OUR_DATASET = '''
"""Two classes of noise."""

import numpy as np

from assay.runs.data_info import DataInfo

INFO = DataInfo(
    shape=(1, 4, 4),
    classes=2,
    examples={"train": 60, "validation": 20, "test": 20},
    labels_per_class=30,
)


def prepare(*, contrast: float):
    """Noise, brighter for class 1."""
    random = np.random.default_rng(0)

    def split(count):
        label = np.arange(count) % 2
        image = random.random((count, 1, 4, 4)) * 0.5 + contrast * label[:, None, None, None]
        return {"image": image.astype(np.float32), "label": label}

    return {name: split(count) for name, count in INFO.examples.items()}
'''
OUR_MODEL = '''
"""One hidden layer."""

from math import prod

from torch import nn


def build(info, *, hidden: int):
    """A perceptron."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(prod(info.shape), hidden), nn.ReLU())
    network.features = hidden
    return network
'''
OUR_OBJECTIVE = '''
"""Learning to copy the image."""

from math import prod

import pytorch_lightning as pl
import torch
from torch import nn


class CopyImage(pl.LightningModule):
    """Mean squared error, with an optimizer of its own."""

    FIELDS = ("image",)
    MONITOR = "validation_loss"
    MODE = "min"

    def __init__(self, backbone, info, *, scale: float):
        super().__init__()
        self.backbone = backbone
        self.decoder = nn.Linear(backbone.features, prod(info.shape))
        self.scale = scale

    def training_step(self, batch, index):
        image = batch["image"]
        return self.scale * (self.decoder(self.backbone(image)) - image.flatten(1)).pow(2).mean()

    def validation_step(self, batch, index):
        self.log("validation_loss", self.training_step(batch, index))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
'''


@pytest.mark.slow
def test_data_model_and_objective_drop_in_as_one_file_each(checkout: Checkout) -> None:
    package = checkout.folder / "src" / "assay"
    (package / "datasets" / "noise.py").write_text(OUR_DATASET)
    (package / "models" / "perceptron.py").write_text(OUR_MODEL)
    (package / "objectives" / "copy_image.py").write_text(OUR_OBJECTIVE)
    study = tiny_study() | {"study": "ours"}
    study["prepare"]["dataset"] = {"name": "noise", "contrast": 0.4}
    study["model"] = {"name": "perceptron", "hidden": 8}
    study["pretrain"]["self_supervised"]["objective"] = {"name": "copy_image", "scale": 2}
    study["finetune"]["batch_size"] = 10
    checkout.write_study(study)
    checkout.snakemake()
    assert (checkout.folder / "reports/ours/index.html").exists()
    scores = [m["accuracy"] for run, m in metrics(checkout).items() if "evaluate" in run]
    assert len(scores) == 6
