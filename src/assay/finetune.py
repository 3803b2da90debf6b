"""Finetune: train a new head, and the backbone unless it is frozen, on labelled examples."""

from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli
from safetensors.torch import load_file
from torch import Tensor

from assay.jobs.job import Job, run
from assay.runs import artifacts, execution
from assay.runs.errors import ExitCode, JobError
from assay.runs.execution import Execution
from assay.study.training_settings import TrainingSettings
from assay.training import adaptation, fit, rng


def finetune(
    settings: dict[str, Any],
    seed: int,
    data: Path,
    output: Path,
    weights: Path | None = None,
    pretraining_data: Path | None = None,
    digest: str | None = None,
    execution: Execution = execution.DEFAULT,
) -> None:
    """Train a new head on a pretrained or a new backbone.

    Args:
        settings: JSON with `model`, `objective`, `labels_per_class`, `frozen`, `learning_rate`
            of the backbone and the head, `steps`, `batch_size` and so on.
        seed: decides the labelled examples, the initial weights, the order of examples and every
            random draw.
        data: folder of the prepared data.
        output: the run's folder.
        weights: folder of the pretraining to start from; None trains from scratch.
        pretraining_data: folder of the pretraining's data, if it is not `data`.
        digest: hash that the workflow expects this run to have.
        execution: how the training is carried out; it changes no result.
    """
    folders = {"data": data, "weights": weights, "pretraining_data": pretraining_data}
    parents = {role: folder for role, folder in folders.items() if folder is not None}
    run(_finetune, "finetune", settings, parents, seed, output, digest, execution)


def _finetune(job: Job) -> None:
    settings = TrainingSettings.from_dict(job.settings)
    fit.configure_torch(settings.threads, settings.devices)
    with job.ledger.spend("build"):
        objective = fit.build(settings.model, settings.objective, job.info, job.seed)
        reinitialised = []
        if "weights" in job.folders:
            path = job.file("weights", artifacts.WEIGHTS)
            reinitialised = adaptation.load_pretrained(
                objective, load_file(path), path, _vocabularies(job)
            )
        adaptation.add_lora(objective, settings.lora, job.seed)
    with job.ledger.spend("data"):
        train, validation = (
            fit.read_split(job, objective, split) for split in ("train", "validation")
        )
        if settings.labels_per_class != "all":
            train = subsample_labels(train, settings.labels_per_class, job.seed)
    job.ledger.enter("build")
    fit.fit(job, settings, objective, train, validation, reinitialised)
    job.metrics["labels"] = len(train["label"]) if "label" in train else 0


def _vocabularies(job: Job) -> tuple[dict[str, int], dict[str, int]] | None:
    """Return token -> id of the pretraining and of this training; None if they are equal."""
    if "pretraining_data" not in job.parents or not job.info.is_text:
        return None
    from assay.data import tokenization

    before, now = (
        tokenization.read(job.file(role, artifacts.TOKENIZER))
        for role in ("pretraining_data", "data")
    )
    if before.get_vocab() == now.get_vocab():
        return None
    return tokenization.token_texts(before), tokenization.token_texts(now)


def subsample_labels(train: dict[str, Tensor], per_class: int, seed: int) -> dict[str, Tensor]:
    """Return the few-shot training set: `per_class` examples of each class.

    Raises:
        JobError: the objective reads no labels, or a class has fewer.
    """
    if "label" not in train:
        what = f"labels_per_class: {per_class}: the objective reads no labels"
        raise JobError(f"{what}: write all", ExitCode.DATA)
    rows = few_shot_rows(train["label"], per_class, seed)
    return {name: tensor[rows] for name, tensor in train.items()}


def few_shot_rows(labels: Tensor, per_class: int, seed: int) -> Tensor:
    """Choose `per_class` examples of each class by the seed; a larger choice contains a smaller.

    Args:
        labels: (n,)

    Returns:
        Indices (per_class * classes,), ascending.

    Raises:
        JobError: a class has fewer.
    """
    smallest = int(labels.bincount().min())
    if smallest < per_class:
        what = f"{per_class} labels per class: the rarest class has {smallest}"
        raise JobError(f"{what}: write labels_per_class: {smallest} or all", ExitCode.DATA)
    chosen = []
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero().flatten()
        generator = torch.Generator().manual_seed(rng.mix(seed, "labels", label))
        chosen.append(rows[torch.randperm(len(rows), generator=generator)[:per_class]])
    return torch.cat(chosen).sort().values


if __name__ == "__main__":
    auto_cli(finetune, as_positional=False)
