"""Evaluate: predict each test example and measure; the only stage that reads the test split."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import auto_cli

from assay import splits, training
from assay.batches import InOrder
from assay.job import Job, run

PREDICTIONS = "predictions.csv"


def evaluate(
    settings: dict[str, Any],
    seed: int,
    data: Path,
    weights: Path,
    output: Path,
    digest: str | None = None,
) -> None:
    """Predict each test example, write the table of predictions and measure on it.

    Args:
        settings: JSON with `model`, `objective`, `batch_size`, `device` and `threads`.
        seed: the seed of the fine-tuned network.
        data: folder of the prepared data.
        weights: folder of the fine-tuned network.
        output: the run's folder.
        digest: what the workflow expects this run to be.
    """
    run(_evaluate, "evaluate", settings, {"data": data, "weights": weights}, seed, output, digest)


def _evaluate(job: Job) -> None:
    training.set_up(job.settings)
    with job.ledger.spend("build"):
        objective = training.build(job.settings, job.parents["data"]["facts"], job.seed)
        training.load_weights(objective, job.folders["weights"])
        device = torch.device("cuda" if job.settings["device"] == "gpu" else "cpu")
        objective.to(device).eval()
    with job.ledger.spend("data"):
        test = splits.read(job.folders["data"], "test", objective.FIELDS)
        test = {name: tensor.to(device) for name, tensor in test.items()}
    with job.ledger.spend("predict"), torch.inference_mode():
        batches = InOrder(test, job.settings["batch_size"])
        tables = [objective.predict_step(batch, index) for index, batch in enumerate(batches)]
        predictions = {
            name: torch.cat([table[name] for table in tables]).cpu().numpy() for name in tables[0]
        }
    job.metrics = objective.metrics(predictions)
    with job.ledger.spend("write"):
        _write(job.output / PREDICTIONS, predictions)
    print("evaluate: " + ", ".join(f"{k} {v:.4f}" for k, v in job.metrics.items()), flush=True)


def _write(path: Path, predictions: dict[str, np.ndarray]) -> None:
    columns = {name: values.tolist() for name, values in predictions.items()}
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["example", *columns])
        writer.writerows(
            zip(range(len(next(iter(columns.values())))), *columns.values(), strict=True)
        )


if __name__ == "__main__":
    auto_cli(evaluate, as_positional=False)
