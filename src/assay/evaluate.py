"""Evaluate: predict each test example; the only stage that reads the test split."""

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
from assay.study.training_settings import LoRASettings
from assay.training import adaptation, fit, rng
from assay.training.batches import SequentialBatches, placement, to_device, torch_device


def evaluate(
    settings: dict[str, Any],
    seed: int,
    data: Path,
    weights: Path,
    output: Path,
    digest: str | None = None,
    execution: Execution = execution.DEFAULT,
) -> None:
    """Predict each test example, write the table of predictions and compute metrics from it.

    Args:
        settings: JSON with `model`, `objective`, `batch_size`, `device` and `threads`.
        seed: the seed of the fine-tuned network.
        data: folder of the prepared data.
        weights: folder of the fine-tuned network.
        output: the run's folder.
        digest: hash that the workflow expects this run to have.
        execution: how the run is carried out; it changes no result.
    """
    parents = {"data": data, "weights": weights}
    run(_evaluate, "evaluate", settings, parents, seed, output, digest, execution)


def _evaluate(job: Job) -> None:
    settings = job.settings
    fit.configure_torch(settings["threads"])
    device = torch_device(settings["device"])
    precision = _autocast(settings["precision"], device)
    with job.ledger.spend("build"):
        objective = fit.build(settings["model"], settings["objective"], job.info, job.seed)
        lora = settings.get("lora")
        adaptation.add_lora(objective, lora and LoRASettings(**lora), job.seed)
        adaptation.load_weights(objective, job.file("weights", artifacts.WEIGHTS))
        objective.to(device).eval()
        if device.type == "cuda":
            job.ledger.synchronize = torch.cuda.synchronize
    with job.ledger.spend("data"):
        test = fit.read_split(job, objective, "test")
        test = to_device(test, placement(test, device))
    with job.timed("predict"), torch.inference_mode(), precision:
        batches = enumerate(SequentialBatches(test, settings["batch_size"]))
        tables = [objective.predict_step(to_device(batch, device), i) for i, batch in batches]
        predictions = {
            name: _as_array(torch.cat([table[name] for table in tables])) for name in tables[0]
        }
    job.metrics = _checked_metrics(objective, predictions)
    if "generate" in settings and hasattr(objective, "generate"):
        with job.ledger.spend("predict"), torch.inference_mode(), precision:
            _generate(job, objective)
    with job.ledger.spend("write"):
        atomic_files.write(job.output / artifacts.PREDICTIONS, _as_csv(predictions).encode())
    print("evaluate: " + ", ".join(f"{k} {v:.4f}" for k, v in job.metrics.items()), flush=True)


def _autocast(precision: str, device: torch.device) -> torch.autocast:
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def _generate(job: Job, objective: Any) -> None:
    """Let a language model continue the study's prompts, and write the texts."""
    from assay.data import tokenization

    tokenizer = tokenization.read(job.file("data", artifacts.TOKENIZER))
    options = job.settings["generate"]
    texts = objective.generate(tokenizer, **options, seed=rng.mix(job.seed, "generate"))
    rows = [{"prompt": p, "text": text} for p, text in zip(options["prompts"], texts, strict=True)]
    content = json.dumps(rows, indent=1, ensure_ascii=False) + "\n"
    atomic_files.write(job.output / artifacts.GENERATED, content.encode())


def _checked_metrics(objective: Any, predictions: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the objective's metrics.

    Raises:
        JobError: a metric that the objective states is missing, or one is not a finite number.
    """
    metrics = objective.metrics(predictions)
    for name in dict.fromkeys([*objective.METRICS, *metrics]):
        value = metrics.get(name)
        if type(value) not in (int, float) or not math.isfinite(value):
            what = f"{type(objective).__name__}.metrics() gives {value!r} for {name}"
            raise JobError(f"{what}: return a finite int or float", ExitCode.CODE)
    return metrics


def read_predictions(path: Path) -> dict[str, np.ndarray]:
    """Return the table of predictions as arrays (n,) by column, in the types of the metrics."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: _parse([row[name] for row in rows]) for name in rows[0] if name != "example"}


def _as_array(column: torch.Tensor) -> np.ndarray:
    """Return a column in the type that `read_predictions` returns."""
    dtype = torch.float64 if column.is_floating_point() else torch.int64
    return column.to("cpu", dtype).numpy()


def _parse(texts: list[str]) -> np.ndarray:
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
