"""Evaluate: predict each test example and measure; the only stage that reads the test split."""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import auto_cli

from assay.jobs.job import Job, run
from assay.runs import artifacts, atomic_files, execution
from assay.runs.errors import ExitCode, JobError
from assay.runs.execution import Execution
from assay.training import adaptation, fit, rng
from assay.training.batches import InOrder, all_moved, home


def evaluate(
    settings: dict[str, Any],
    seed: int,
    data: Path,
    weights: Path,
    output: Path,
    digest: str | None = None,
    execution: Execution = execution.DEFAULT,
) -> None:
    """Predict each test example, write the table of predictions and measure on it.

    Args:
        settings: JSON with `model`, `objective`, `batch_size`, `device` and `threads`.
        seed: the seed of the fine-tuned network.
        data: folder of the prepared data.
        weights: folder of the fine-tuned network.
        output: the run's folder.
        digest: what the workflow expects this run to be.
        execution: how it is carried out; it changes no result.
    """
    parents = {"data": data, "weights": weights}
    run(_evaluate, "evaluate", settings, parents, seed, output, digest, execution)


def _evaluate(job: Job) -> None:
    fit.set_up(job.settings)
    with job.ledger.spend("build"):
        objective = fit.build(job.settings, job.info, job.seed)
        adaptation.add(objective, job.settings, job.seed)
        adaptation.load(objective, job.file("weights", artifacts.WEIGHTS))
        device = torch.device("cuda" if job.settings["device"] == "gpu" else "cpu")
        objective.to(device).eval()
        if device.type == "cuda":
            job.ledger.synchronize = torch.cuda.synchronize
    with job.ledger.spend("data"):
        test = fit.read(job, objective, "test")
        test = all_moved(test, home(test, device))
    with job.timed("predict"), torch.inference_mode(), fit.autocast(job.settings):
        batches = enumerate(InOrder(test, job.settings["batch_size"]))
        tables = [
            objective.predict_step(all_moved(batch, device), index) for index, batch in batches
        ]
        predictions = {
            name: _numbers(torch.cat([table[name] for table in tables])) for name in tables[0]
        }
    job.metrics = _measured(objective, predictions)
    if "generate" in job.settings and hasattr(objective, "generate"):
        precise = fit.autocast(job.settings)
        with job.ledger.spend("predict"), torch.inference_mode(), precise:
            _generate(job, objective)
    with job.ledger.spend("write"):
        atomic_files.write(job.output / artifacts.PREDICTIONS, _as_csv(predictions).encode())
    print("evaluate: " + ", ".join(f"{k} {v:.4f}" for k, v in job.metrics.items()), flush=True)


def _generate(job: Job, objective: Any) -> None:
    """Let a language model go on from the study's prompts, and write what it says."""
    from assay.data import tokenization

    tokenizer = tokenization.read(job.file("data", artifacts.TOKENIZER))
    asked = job.settings["generate"]
    found = objective.generate(tokenizer, **asked, seed=rng.mix(job.seed, "generate"))
    said = [{"prompt": p, "text": text} for p, text in zip(asked["prompts"], found, strict=True)]
    content = json.dumps(said, indent=1, ensure_ascii=False) + "\n"
    atomic_files.write(job.output / artifacts.GENERATED, content.encode())


def _measured(objective: Any, predictions: dict[str, np.ndarray]) -> dict[str, float]:
    """The metrics that the objective states, each a finite number."""
    found = objective.metrics(predictions)
    for name in dict.fromkeys([*objective.METRICS, *found]):
        value = found.get(name)
        if type(value) not in (int, float) or not math.isfinite(value):
            what = f"{type(objective).__name__}.metrics() gives {value!r} for {name}"
            raise JobError(f"{what}: a finite int or float is needed", ExitCode.CODE)
    return found


def read_predictions(path: Path) -> dict[str, np.ndarray]:
    """The table of predictions as the metrics were measured on it: arrays (n,) by column."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: _column([row[name] for row in rows]) for name in rows[0] if name != "example"}


def _numbers(column: torch.Tensor) -> np.ndarray:
    """A column in the type in which it can be read again from text."""
    kind = torch.float64 if column.is_floating_point() else torch.int64
    return column.to("cpu", kind).numpy()


def _column(texts: list[str]) -> np.ndarray:
    try:
        return np.array([int(text) for text in texts])
    except ValueError:
        return np.array([float(text) for text in texts])


def _as_csv(predictions: dict[str, np.ndarray]) -> str:
    columns = {name: values.tolist() for name, values in predictions.items()}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["example", *columns])
    writer.writerows(zip(range(len(next(iter(columns.values())))), *columns.values(), strict=True))
    return text.getvalue()


if __name__ == "__main__":
    auto_cli(evaluate, as_positional=False)
