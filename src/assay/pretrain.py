"""Pretrain: learn a backbone from the training examples without their labels."""

from pathlib import Path
from typing import Any

from jsonargparse import auto_cli

from assay.jobs.job import Job, run
from assay.runs import execution
from assay.runs.execution import Execution
from assay.training import fit


def pretrain(
    settings: dict[str, Any],
    seed: int,
    data: Path,
    output: Path,
    digest: str | None = None,
    execution: Execution = execution.DEFAULT,
) -> None:
    """Learn a backbone by an objective that reads no labels.

    Args:
        settings: JSON with `model`, `objective`, `steps`, `batch_size`, `learning_rate` and so on.
        seed: decides the initial weights, the order of examples and every random draw.
        data: folder of the prepared data.
        output: the run's folder.
        digest: what the workflow expects this run to be.
        execution: how the training is carried out; it changes no result.
    """
    run(_pretrain, "pretrain", settings, {"data": data}, seed, output, digest, execution)


def _pretrain(job: Job) -> None:
    fit.set_up(job.settings)
    with job.ledger.spend("build"):
        objective = fit.build(job.settings, job.info, job.seed)
    with job.ledger.spend("data"):
        train, validation = (fit.read(job, objective, split) for split in ("train", "validation"))
    job.ledger.enter("build")
    fit.fit(job, objective, train, validation)


if __name__ == "__main__":
    auto_cli(pretrain, as_positional=False)
