"""Pretrain: train a backbone on the training examples without their labels."""

from pathlib import Path
from typing import Any

from jsonargparse import auto_cli

from assay.jobs.job import Job, run
from assay.runs import execution
from assay.runs.execution import Execution
from assay.study.training_settings import TrainingSettings
from assay.training import fit


def pretrain(
    settings: dict[str, Any],
    seed: int,
    data: Path,
    output: Path,
    digest: str | None = None,
    execution: Execution = execution.DEFAULT,
) -> None:
    """Train a backbone with an objective that reads no labels.

    Args:
        settings: JSON with `model`, `objective`, `steps`, `batch_size`, `learning_rate` and so on.
        seed: decides the initial weights, the order of examples and every random draw.
        data: folder of the prepared data.
        output: the run's folder.
        digest: hash that the workflow expects this run to have.
        execution: how the training is carried out; it changes no result.
    """
    run(_pretrain, "pretrain", settings, {"data": data}, seed, output, digest, execution)


def _pretrain(job: Job) -> None:
    settings = TrainingSettings.from_dict(job.settings)
    fit.configure_torch(settings.threads, settings.devices)
    with job.ledger.spend("build"):
        objective = fit.build(settings.model, settings.objective, job.info, job.seed)
    with job.ledger.spend("data"):
        train, validation = (
            fit.read_split(job, objective, split) for split in ("train", "validation")
        )
    job.ledger.enter("build")
    fit.fit(job, settings, objective, train, validation)


if __name__ == "__main__":
    auto_cli(pretrain, as_positional=False)
