"""The one place that builds a Trainer and fits."""

import csv
import logging
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from safetensors.torch import load_file, save_file
from torch import Tensor

from assay import optimizers, plugins, randomness
from assay.batches import Batches, InOrder
from assay.callbacks import Frozen, History, Randomness
from assay.job import Job, JobError

WEIGHTS, HISTORY = "weights.safetensors", "history.csv"
VALIDATION_BATCH_EXAMPLES = 1024


def build(settings: dict[str, Any], facts: dict[str, Any], seed: int) -> pl.LightningModule:
    """Build an objective around a new backbone, both initialised from the seed."""
    model, objective = dict(settings["model"]), dict(settings["objective"])
    randomness.reseed(randomness.mix(seed, "initialisation"))
    backbone = plugins.load("model", model.pop("name")).build(facts, **model)
    name = objective.pop("name")
    kind = getattr(plugins.load("objective", name), plugins.class_name(name))
    return kind(backbone, facts, **objective)


def set_up(settings: dict[str, Any]) -> None:
    """Make this process compute the same bits each time, with the threads that the study says."""
    torch.set_num_threads(settings["threads"])
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning")


def fit(
    job: Job, objective: pl.LightningModule, train: dict[str, Tensor], validation: dict[str, Tensor]
) -> None:
    """Train an objective, and write the weights of its best validation and its history.

    Args:
        job: its settings say `steps`, `batch_size`, `validate_every_steps`, `learning_rate`,
            `weight_decay`, `warmup_steps`, `frozen`, `device` and `precision`.
        objective: trained in place. It may bring its own `configure_optimizers`.
        train: tensors (n, ...) by field.
        validation: likewise; the only data that decides which weights are kept.

    Raises:
        JobError: the loss is no longer finite.
    """
    settings, seed = job.settings, job.seed
    frozen = settings.get("frozen", [])
    for name, parameter in objective.named_parameters():
        parameter.requires_grad_(name.split(".")[0] not in frozen)
    if not pl.utilities.model_helpers.is_overridden("configure_optimizers", objective):
        objective.configure_optimizers = lambda: optimizers.adamw(objective, settings)
    history = History(job.ledger, objective.MONITOR, objective.MODE, settings["batch_size"])
    per_round = settings["validate_every_steps"]
    trainer = pl.Trainer(
        accelerator=settings["device"],
        devices=1,
        precision=settings["precision"],
        max_epochs=settings["steps"] // per_round,
        callbacks=[Randomness(seed), Frozen(frozen), history],
        plugins=[LightningEnvironment()],
        deterministic=True,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    device = trainer.strategy.root_device
    if device.type == "cuda":
        job.ledger.synchronize = torch.cuda.synchronize
    trainer.fit(
        objective,
        Batches(_to(train, device), settings["batch_size"], per_round, seed),
        InOrder(_to(validation, device), VALIDATION_BATCH_EXAMPLES),
    )
    with job.ledger.spend("write"):
        save_file(history.best_weights, job.output / WEIGHTS)
        _write_history(job.output / HISTORY, history.rows)
    job.metrics = _metrics(objective, history)
    job.extra["monitor"] = {"metric": objective.MONITOR, "mode": objective.MODE}


def _metrics(objective: pl.LightningModule, history: History) -> dict[str, float]:
    """The row of the best validation, and the network's size."""
    untimed = {name: value for name, value in history.best.items() if name != "seconds"}
    sizes = {
        "parameters": sum(p.numel() for p in objective.parameters()),
        "trained_parameters": sum(p.numel() for p in objective.parameters() if p.requires_grad),
    }
    return {**untimed, **sizes}


def load_weights(objective: pl.LightningModule, folder: Path, prefix: str = "") -> None:
    """Load a run's weights into an objective.

    Args:
        prefix: only the entries that start so, such as `backbone.`; all of those must fit.

    Raises:
        JobError: the weights are not those of such a network.
    """
    found = load_file(folder / WEIGHTS)
    wanted = [name for name in objective.state_dict() if name.startswith(prefix)]
    chosen = {name: tensor for name, tensor in found.items() if name.startswith(prefix)}
    if set(chosen) != set(wanted):
        raise JobError(f"{folder / WEIGHTS} holds another network: {sorted(chosen)} for {wanted}")
    try:
        objective.load_state_dict(chosen, strict=False)
    except RuntimeError as error:
        raise JobError(f"{folder / WEIGHTS} holds another network: {error}") from error


def _to(data: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: tensor.to(device) for name, tensor in data.items()}


def _write_history(path: Path, rows: list[dict[str, float]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
