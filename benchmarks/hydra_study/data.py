"""The digits as Lightning takes data."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, RandomSampler, StackDataset

from assay import finetune
from assay.datasets import digits

VALIDATION_BATCH_EXAMPLES = 1024


class Digits(pl.LightningDataModule):
    """Shuffled full batches, as many in an epoch as lie between two validations."""

    def __init__(self, settings: dict[str, Any], test_batch_size: int, seed: int) -> None:
        """Keep what decides the batches.

        Args:
            settings: `batch_size`, `validate_every_steps`, and perhaps `labels_per_class`.
            test_batch_size: examples.
            seed: chooses the labelled examples.
        """
        super().__init__()
        self.settings, self.test_batch_size, self.seed = settings, test_batch_size, seed
        self.splits: dict[str, StackDataset] = {}

    def setup(self, stage: str) -> None:
        if self.splits:
            return
        for split, fields in digits.prepare().items():
            tensors = {name: torch.tensor(array) for name, array in fields.items()}
            few = self.settings.get("labels_per_class", "all")
            if split == "train" and few != "all":
                rows = finetune.few_shot_rows(tensors["label"], few, self.seed)
                tensors = {name: tensor[rows] for name, tensor in tensors.items()}
            self.splits[split] = StackDataset(**tensors)

    def train_dataloader(self) -> DataLoader:
        train, size = self.splits["train"], self.settings["batch_size"]
        examples = size * self.settings["validate_every_steps"]
        return DataLoader(train, size, sampler=RandomSampler(train, num_samples=examples))

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.splits["validation"], VALIDATION_BATCH_EXAMPLES)

    def test_dataloader(self) -> DataLoader:
        return DataLoader(self.splits["test"], self.test_batch_size)
