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
    """Train a new head on a backbone that was pretrained, or on a new one.

    Args:
        settings: JSON with `model`, `objective`, `labels_per_class`, `frozen`, `learning_rate`
            of the backbone and the head, `steps`, `batch_size` and so on.
        seed: decides the labelled examples, the initial weights, the order of examples and every
            random draw.
        data: folder of the prepared data.
        output: the run's folder.
        weights: folder of the pretraining to start from; none trains from scratch.
        pretraining_data: folder of the data that the pretraining learnt from, where that is another.
        digest: what the workflow expects this run to be.
        execution: how the training is carried out; it changes no result.
    """
    given = {"data": data, "weights": weights, "pretraining_data": pretraining_data}
    parents = {role: folder for role, folder in given.items() if folder is not None}
    run(_finetune, "finetune", settings, parents, seed, output, digest, execution)


def _finetune(job: Job) -> None:
    fit.set_up(job.settings)
    with job.ledger.spend("build"):
        objective = fit.build(job.settings, job.info, job.seed)
        anew = []
        if "weights" in job.folders:
            path = job.file("weights", artifacts.WEIGHTS)
            anew = adaptation.start(objective, load_file(path), path, _vocabularies(job))
        adaptation.add(objective, job.settings, job.seed)
    with job.ledger.spend("data"):
        train, validation = (fit.read(job, objective, split) for split in ("train", "validation"))
        if job.settings["labels_per_class"] != "all":
            train = subsample_labels(train, job.settings["labels_per_class"], job.seed)
    job.ledger.enter("build")
    fit.fit(job, objective, train, validation, anew)
    job.metrics["labels"] = len(train["label"]) if "label" in train else 0


def _vocabularies(job: Job) -> tuple[dict[str, int], dict[str, int]] | None:
    """What tokens stand for, of the pretraining and of this training, where they differ."""
    if "pretraining_data" not in job.parents or not job.info.is_text:
        return None
    from assay.data import tokenization, vocabularies

    before, now = (
        tokenization.read(job.file(role, artifacts.TOKENIZER))
        for role in ("pretraining_data", "data")
    )
    if before.get_vocab() == now.get_vocab():
        return None
    return vocabularies.meanings(before), vocabularies.meanings(now)


def subsample_labels(train: dict[str, Tensor], per_class: int, seed: int) -> dict[str, Tensor]:
    """The examples that `labelled` chooses.

    Raises:
        JobError: the objective reads no labels, or a class has fewer.
    """
    if "label" not in train:
        what = f"labels_per_class: {per_class}: the objective reads no labels"
        raise JobError(f"{what}: write all", ExitCode.DATA)
    rows = labelled(train["label"], per_class, seed)
    return {name: tensor[rows] for name, tensor in train.items()}


def labelled(labels: Tensor, per_class: int, seed: int) -> Tensor:
    """Choose `per_class` examples of each class by the seed; fewer are always among more.

    Args:
        labels: (n,)

    Returns:
        Indices (per_class * classes,), ascending.

    Raises:
        JobError: a class has fewer.
    """
    counts = labels.bincount()
    if int(counts.min()) < per_class:
        what = f"{per_class} labels per class: the rarest class has {int(counts.min())}"
        raise JobError(f"{what}: write labels_per_class: {int(counts.min())} or all", ExitCode.DATA)
    chosen = []
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero().flatten()
        generator = torch.Generator().manual_seed(rng.mix(seed, "labels", label))
        chosen.append(rows[torch.randperm(len(rows), generator=generator)[:per_class]])
    return torch.cat(chosen).sort().values


if __name__ == "__main__":
    auto_cli(finetune, as_positional=False)
