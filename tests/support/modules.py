"""A LightningModule of two tied layers, fitted for 6 steps."""

import csv
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch
from support.trainings import attempt
from torch import nn

from assay.jobs.job import Job
from assay.runs import artifacts
from assay.runs.execution import Execution
from assay.study.training_settings import TrainingSettings
from assay.training import distributed, fit, rng


class Tied(pl.LightningModule):
    """Two layers of the same weights, and one that the module itself keeps as it is."""

    FIELDS, MONITOR, MODE = ("image",), "validation_loss", "min"

    def __init__(self) -> None:
        super().__init__()
        rng.reseed(0)
        self.backbone, self.head, self.fixed = (nn.Linear(4, 4, bias=False) for _ in range(3))
        self.head.weight = self.backbone.weight
        self.fixed.requires_grad_(False)

    def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
        return (self.fixed(self.head(self.backbone(batch["image"]))) - 1).square().mean()

    def validation_step(self, batch: dict[str, torch.Tensor], index: int) -> None:
        self.log("validation_loss", self.training_step(batch, index), batch_size=1)


def fitted(folder: Path, extra: dict, kind: type[Tied] = Tied) -> tuple[Tied, list[dict[str, str]]]:
    """A module, and its history, after 6 steps."""
    chosen = {
        "model": {"name": "none"}, "objective": {"name": "lightning"}, "steps": 6,
        "batch_size": 4, "validate_every_steps": 2, "learning_rate": 0.1,
        "weight_decay": 0.0, "warmup_steps": 1, "frozen": [], "device": "cpu",
        "precision": "32-true", "threads": 1, **extra,
    }  # fmt: skip
    module, data = kind(), {"image": torch.randn(16, 4, generator=torch.Generator().manual_seed(0))}
    job = Job.open("finetune", chosen, {}, 0, folder, Execution(progress_seconds=0))
    fit.fit(job, TrainingSettings.from_dict(chosen), module, data, data)
    return module, list(csv.DictReader((folder / artifacts.HISTORY).open()))


def in_a_group_of_one() -> None:
    """Let a training on one device run as one of several devices does."""

    @contextmanager
    def processes(
        job: Job, settings: TrainingSettings, world_size: int
    ) -> Iterator[distributed.World]:
        server = socket.create_server((distributed.ADDRESS, 0))
        yield from distributed._joined(settings, distributed.World(0, 1), server)

    distributed.processes = processes


def of_one(folder: Path, device: str) -> list[bytes]:
    """The weights of a training on one device: alone, in a process group of one, and with FSDP."""
    kinds = {
        "alone": (lambda: None, {}),
        "group": (in_a_group_of_one, {}),
        "fsdp": (in_a_group_of_one, {"fsdp": True}),
    }
    for name, (before, extra) in kinds.items():
        work = partial(fitted, folder / name, {"device": device, **extra})
        assert attempt(work, before) == 0
    return [(folder / name / artifacts.WEIGHTS).read_bytes() for name in kinds]
