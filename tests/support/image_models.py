"""Small networks for images, and trainings of them by each objective."""

import csv
from pathlib import Path

import torch
from torch import Tensor, nn

from assay import plugins
from assay.jobs.job import Job
from assay.runs import artifacts
from assay.runs.data_info import DataInfo
from assay.runs.execution import Execution
from assay.study.training_settings import TrainingSettings
from assay.training import fit

VIT = {"patch_pixels": 4, "layers": 2, "heads": 2, "width": 16}
MODELS = {
    "cnn": ("cnn", {"width": 4, "features": 8}),
    "resnet": ("resnet", {"width": 4, "features": 8}),
    "mlp": ("mlp", {"widths": [12, 8], "activation": "gelu"}),
    "vit": ("vit", {**VIT, "pool": "mean"}),
    "vit_token": ("vit", {**VIT, "pool": "token"}),
}
DECODER = {"decoder_layers": 1, "decoder_heads": 2, "decoder_width": 8}
AUTOENCODER = {"masked_fraction": 0.6, **DECODER, "normalised": True}
OBJECTIVES = {
    "classification": {
        "label_smoothing": 0.1, "augmentation": 0.5, "horizontal_flip": True,
        "random_crop_padding": 2,
    },
    "vicreg": {
        "embedding": 8, "invariance": 25.0, "variance": 25.0, "covariance": 1.0,
        "augmentation": 1.0, "horizontal_flip": True, "random_crop_padding": 1,
    },
    "simclr": {"embedding": 8, "temperature": 0.2, "augmentation": 1.0, "horizontal_flip": True},
    "masked_image": {"patch_pixels": 4, "masked_fraction": 0.5, "hidden_features": 8},
    "masked_autoencoder": AUTOENCODER,
}  # fmt: skip  # fmt: skip
INFO = DataInfo(shape=(3, 16, 12), classes=7)


def network(model: str, shape: tuple[int, int, int] = INFO.shape) -> nn.Module:
    name, options = MODELS[model]
    torch.manual_seed(0)
    return plugins.load("model", name).build(DataInfo(shape=shape), **options).eval()


def images(count: int, shape: tuple[int, int, int] = INFO.shape, seed: int = 0) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed))


def trained(folder: Path, model: str, objective: dict, **changes: object) -> list[dict[str, str]]:
    """The history of a training of some steps, which writes its weights."""
    name, options = MODELS[model]
    run = {
        "model": {"name": name, **options}, "objective": objective, "steps": 4, "batch_size": 8,
        "validate_every_steps": 2, "learning_rate": 0.01, "weight_decay": 0.01, "warmup_steps": 1,
        "frozen": [], "device": "cpu", "precision": "32-true", "threads": 1, **changes,
    }  # fmt: skip
    settings = TrainingSettings.from_dict(run)
    fit.configure_torch(settings.threads, settings.devices)
    data = {"image": images(24), "label": torch.arange(24) % INFO.classes}
    module = fit.build(settings.model, settings.objective, INFO, 0)
    job = Job.open("finetune", run, {}, 0, folder, Execution(progress_seconds=0))
    fit.fit(job, settings, module, data, data)
    return list(csv.DictReader((folder / artifacts.HISTORY).open()))
