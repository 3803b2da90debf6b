"""The one place that builds a Trainer and fits."""

import csv
import importlib
import io
import logging
import os
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy, Strategy
from safetensors.torch import save
from torch import Tensor

from assay import plugins
from assay.data import split_files
from assay.jobs.job import Job
from assay.runs import artifacts, atomic_files
from assay.runs.artifacts import HISTORY, WEIGHTS
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError
from assay.training import adaptation, checkpoints, distributed, flops, optimizers, rng
from assay.training.batches import HOST, Batches, InOrder, all_moved, as_input, home
from assay.training.callbacks import EMA, Frozen, History, Randomness
from assay.training.distributed import Rank
from assay.training.fsdp import Sharded
from assay.training.loop import Rounds, Steps
from assay.training.resume import Resuming

VALIDATION_BATCH_EXAMPLES = 1024


class Trainer(pl.Trainer):
    """Tells a module that asks, for a schedule perhaps, how many steps there will be.

    Lightning would count the rounds, and those that are trained of them.
    """

    def __init__(self, all_steps: int, **options: Any) -> None:
        super().__init__(**options)
        self.all_steps = all_steps

    @property
    def estimated_stepping_batches(self) -> int:
        return self.all_steps


def build(settings: dict[str, Any], info: DataInfo, seed: int) -> pl.LightningModule:
    """Build an objective around a new backbone, both initialised from the seed.

    Raises:
        JobError: its settings fit neither each other nor the data.
    """
    model, objective = dict(settings["model"]), dict(settings["objective"])
    rng.reseed(rng.mix(seed, "initialisation"))
    name = objective.pop("name")
    kind = getattr(plugins.load("objective", name), plugins.class_name(name))
    try:
        return kind(_backbone(model.pop("name"), info, model), info, **objective)
    except ValueError as error:
        raise JobError(str(error), ExitCode.CODE) from error


def _backbone(name: str, info: DataInfo, settings: dict[str, Any]) -> torch.nn.Module:
    if plugins.is_own("model", name):
        return importlib.import_module("assay.nn.user_modules").build(name, info, settings)
    first, target = plugins.split(name)
    targets = (target,) if target else ()
    return plugins.load("model", first).build(info, *targets, **settings)


def read(job: Job, objective: pl.LightningModule, split: str) -> dict[str, Tensor]:
    """The fields of a split that an objective reads; a stream of tokens as windows.

    Windows of the training split begin at each token, the others lie end to end.

    Raises:
        JobError: the split is shorter than a window.
    """
    given = job.info.input_field
    fields = [given if name == "input" else name for name in objective.FIELDS]
    found = split_files.read(job.file("data", artifacts.split(split)), fields)
    if given == "tokens" and found["tokens"].dim() == 1:
        context_length = objective.backbone.context_length
        every = None if split == "train" else context_length
        try:
            found["tokens"] = split_files.windows(found["tokens"], context_length + 1, every)
        except ValueError as error:
            what = f"the {split} split has {error}: lower the model's context_length"
            raise JobError(f"{job.folders['data']}: {what}", ExitCode.DATA) from error
    return found


def set_up(settings: dict[str, Any]) -> None:
    """Make this process compute the same bits each time, with the threads that the study says."""
    # without a fixed workspace cuBLAS is not deterministic, and PyTorch says so and stops
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # whoever asks whether there is a GPU is answered without using one: processes may be forked yet
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    several = settings.get("devices", 1) > 1  # then `ranks` sets threads, once there are processes
    torch.set_num_threads(1 if several else settings["threads"])
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")


def autocast(settings: dict[str, Any]) -> torch.autocast:
    """The context in which a network computes in the study's precision, outside of a training."""
    kind = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(settings["precision"])
    device = "cuda" if settings["device"] == "gpu" else "cpu"
    return torch.autocast(device, kind, enabled=kind is not None)


def fit(
    job: Job,
    objective: pl.LightningModule,
    train: dict[str, Tensor],
    validation: dict[str, Tensor],
    anew: Sequence[torch.nn.Parameter] = (),
) -> None:
    """Train an objective, and write the weights of its best validation and its history.

    A run that was killed goes on from its last checkpoint, to the same bytes. What is written comes
    from the last checkpoint's file.

    Args:
        job: its settings say `steps`, `batch_size`, `validate_every_steps`, `learning_rate`,
            `weight_decay`, `warmup_steps`, `frozen`, `device`, `precision`, and perhaps
            `gradient_accumulation_steps`, `ema_decay`, `early_stopping_patience`, `compile` and `devices`.
        objective: trained in place. It may bring its own `configure_optimizers`.
        train: tensors (n, ...) by field.
        validation: likewise; the only data that decides which weights are kept.
        anew: of the weights, those that begin anew and so learn even where others like them do not.

    Raises:
        JobError: the loss is no longer finite, or the job has to stop.
    """
    settings = job.settings
    frozen = adaptation.choose(objective, settings, anew)
    if not pl.utilities.model_helpers.is_overridden("configure_optimizers", objective):
        objective.configure_optimizers = lambda: optimizers.adamw(objective, settings)
    _count_operations(job, objective, train)
    state = checkpoints.left(job.resume_folder)
    finished = state is not None and state["finished"]
    with distributed.started(job, 1 if finished else settings.get("devices", 1)) as rank:
        history = _fit(job, rank, objective, frozen, train, validation, state)
    history.restore(checkpoints.newest(job.resume_folder)["history"])
    with job.ledger.spend("write"):
        atomic_files.write(job.output / WEIGHTS, save(history.best_weights))
        atomic_files.write(job.output / HISTORY, _as_csv(history.rows).encode())
    _measure_device(job)
    job.metrics = _metrics(objective, history)
    job.extra["monitor"] = {"metric": objective.MONITOR, "mode": objective.MODE}


def _fit(
    job: Job,
    rank: Rank,
    objective: pl.LightningModule,
    frozen: list[str],
    train: dict[str, Tensor],
    validation: dict[str, Tensor],
    state: dict[str, Any] | None,
) -> History:
    """One device's part of a training, from a checkpoint's state if there is one."""
    device = _device(job, rank)
    if device.type == "cuda":
        job.ledger.synchronize = torch.cuda.synchronize
        torch.cuda.reset_peak_memory_stats(device)
        peak = partial(torch.cuda.max_memory_allocated, device)
        job.meter.peaks["peak_device_memory_bytes"] = peak
    batches = _batches(job, rank, train, device)
    history = History(job, objective, rank)
    resuming = Resuming(job, rank, batches, history)
    if state:
        resuming.load(state)
    if not state or not state["finished"]:
        trainer, steps = _trainer(job, resuming, frozen)
        in_order = InOrder(
            all_moved(validation, home(validation, device)), VALIDATION_BATCH_EXAMPLES
        )
        checkpoint = state and str(job.resume_folder)
        with job.meter.running():
            trainer.fit(objective, Rounds(steps), in_order, ckpt_path=checkpoint)
    return history


def _device(job: Job, rank: Rank = distributed.ALONE) -> torch.device:
    return torch.device("cuda", rank.number) if job.settings["device"] == "gpu" else HOST


def _batches(job: Job, rank: Rank, train: dict[str, Tensor], device: torch.device) -> Batches:
    settings = job.settings
    per_round = settings["validate_every_steps"] * settings.get("gradient_accumulation_steps", 1)
    return Batches(
        train,
        settings["batch_size"],
        per_round,
        job.seed,
        job.execution.loader_workers,
        device,
        rank.number,
        rank.count,
        partial(job.ledger.part, "data_wait"),
    )


def _trainer(job: Job, resuming: Resuming, frozen: list[str]) -> tuple[pl.Trainer, Steps]:
    settings = job.settings
    all_rounds = settings["steps"] // settings["validate_every_steps"]
    # Resuming is first: it looks between two batches. Average is last: it takes its weights away.
    around = [resuming, Randomness(job.seed, resuming.batches), resuming.history]
    if "ema_decay" in settings:
        around.append(EMA(settings["ema_decay"]))
    resuming.steps = steps = Steps(job, resuming.batches, around)
    trainer = Trainer(
        all_steps=settings["steps"],
        accelerator=settings["device"],
        devices=resuming.rank.count,
        strategy=_strategy(settings, resuming.rank),
        precision=settings["precision"],
        max_epochs=min(job.execution.intervals or all_rounds, all_rounds),
        accumulate_grad_batches=settings.get("gradient_accumulation_steps", 1),
        callbacks=[steps, Frozen(frozen), *around],
        plugins=[distributed.Environment(resuming.rank), checkpoints.Folder(job.resume_folder)],
        deterministic=True,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    return trainer, steps


def _strategy(settings: dict[str, Any], rank: Rank) -> Strategy | str:
    if rank.group is None:
        return "auto"
    if settings.get("fsdp"):
        return Sharded()
    # Buckets of gradients that are looked for in each step are never laid out anew: after that
    # they add up in another order, which a training that goes on would do one step later.
    return DDPStrategy(find_unused_parameters=True)


def _count_operations(job: Job, objective: pl.LightningModule, train: dict[str, Tensor]) -> None:
    settings = job.settings
    batch = as_input({name: values[: settings["batch_size"]] for name, values in train.items()})
    device: torch.device | None = _device(job)
    if settings.get("devices", 1) > 1:  # no process may touch a GPU before there are all
        device = None if settings.get("fsdp") else HOST
    counted = flops.per_sample(objective, batch, device)
    job.extra["flops_per_sample"], job.extra["flops_missing_because"] = counted


def _measure_device(job: Job) -> None:
    """Note what the device can do, which is no part of what the training held."""
    device = _device(job)
    if device.type == "cuda":
        held = torch.cuda.max_memory_allocated(device)
        job.meter.peaks["peak_device_memory_bytes"] = lambda: held
    torch.set_num_threads(job.settings["threads"])
    peak = flops.peak_per_second(device, job.settings["precision"])
    job.meter.notes["peak_flops_per_second"] = peak


def _metrics(objective: pl.LightningModule, history: History) -> dict[str, float]:
    """The row of the best validation, and the network's size."""
    untimed = {
        k: v for k, v in history.best.items() if k != "weights" and not k.endswith("_seconds")
    }
    sizes = {
        "parameters": sum(p.numel() for p in objective.parameters()),
        "trained_parameters": sum(p.numel() for p in objective.parameters() if p.requires_grad),
    }
    return {**untimed, **sizes}


def _as_csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
