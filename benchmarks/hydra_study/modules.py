"""The study's objectives with their optimizer and what a run logs."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional

from assay import plugins
from assay.datasets.digits import INFO
from assay.objectives.classification import Classification
from assay.objectives.vicreg import Vicreg
from assay.study.training_settings import TrainingSettings
from assay.training import optimizers


class Learner(pl.LightningModule):
    """What both stages have in common; the objective is the next class that a module inherits."""

    def __init__(self, model: dict[str, Any], settings: dict[str, Any]) -> None:
        """Build the objective around a new backbone.

        Args:
            model: its `name`, and what its `build` takes.
            settings: `objective`, and what `optimizers.adamw` reads.
        """
        backbone = plugins.load("model", model["name"]).build(INFO, **_unnamed(model))
        super().__init__(backbone, INFO, **_unnamed(settings["objective"]))
        self.settings = settings
        self.optimizer_settings = TrainingSettings.from_dict({"model": model, **settings})

    def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
        loss = super().training_step(batch, index)
        self.log("training_loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> dict[str, Any]:
        return optimizers.adamw(self, self.optimizer_settings)


def _unnamed(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "name"}


class Pretraining(Learner, Vicreg):
    """Learns a backbone without labels."""


class Finetuning(Learner, Classification):
    """Learns from labels, perhaps on a pretrained backbone, and measures on the test split."""

    def __init__(self, model: dict[str, Any], settings: dict[str, Any], pretrained: str) -> None:
        """Build it.

        Args:
            model: as for `Learner`.
            settings: likewise, with `pretraining` (`none` starts anew) and `frozen` (parts).
            pretrained: path of that pretraining's checkpoint.
        """
        super().__init__(model, settings)
        if settings["pretraining"] != "none":
            found = torch.load(pretrained)["state_dict"]
            prefix = "backbone."
            kept = {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
            self.backbone.load_state_dict(kept)
        for part in settings["frozen"]:
            self.get_submodule(part).requires_grad_(False)

    def on_train_epoch_start(self) -> None:
        for part in self.settings["frozen"]:
            self.get_submodule(part).eval()

    def test_step(self, batch: dict[str, Tensor], index: int) -> None:
        logits, label = self(batch["image"]), batch["label"]
        measured = {
            "accuracy": (logits.argmax(1) == label).float().mean(),
            "loss": functional.cross_entropy(logits, label),
        }
        self.log_dict(measured, batch_size=len(label))
