"""Builds an objective, reads its data and trains it; the only place that makes a Trainer."""

import importlib
import logging
import os
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.model_helpers import is_overridden
from safetensors.torch import save
from torch import Tensor

from assay import plugins
from assay.data import split_files
from assay.jobs.job import Job
from assay.runs import artifacts, atomic_files
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode, JobError
from assay.study.training_settings import TrainingSettings
from assay.training import adaptation, checkpoints, distributed, flops, optimizers, rng
from assay.training.adaptation import FreezeModules
from assay.training.batches import Batches, SequentialBatches, placement, to_device, torch_device
from assay.training.distributed import World
from assay.training.ema import EMA
from assay.training.history import EarlyStopping, History, Progress
from assay.training.lightning_internals import StepTrainer
from assay.training.loop import Intervals, StepLoop
from assay.training.resume import Resume
from assay.training.rng import SeedBatches


def build(
    model: dict[str, Any], objective: dict[str, Any], info: DataInfo, seed: int
) -> pl.LightningModule:
    """Build an objective with a new backbone, both initialised from the seed.

    Args:
        model: `name`, and the arguments of the model's `build`.
        objective: `name`, and the arguments of the objective's class.
        info: of the data.

    Raises:
        JobError: the settings fit neither each other nor the data.
    """
    rng.reseed(rng.mix(seed, "initialisation"))
    model, arguments = dict(model), dict(objective)
    name = arguments.pop("name")
    kind = getattr(plugins.load("objective", name), plugins.class_name(name))
    try:
        return kind(_backbone(model.pop("name"), info, model), info, **arguments)
    except ValueError as error:
        raise JobError(str(error), ExitCode.CODE) from error


def _backbone(name: str, info: DataInfo, arguments: dict[str, Any]) -> torch.nn.Module:
    if plugins.is_own("model", name):
        return importlib.import_module("assay.nn.user_modules").build(name, info, arguments)
    first, target = plugins.split(name)
    targets = (target,) if target else ()
    return plugins.load("model", first).build(info, *targets, **arguments)


def read_split(job: Job, objective: pl.LightningModule, split: str) -> dict[str, Tensor]:
    """Read the fields of a split that an objective asks for; a stream of tokens as windows.

    Windows of the training split start at each token, those of other splits do not overlap.

    Raises:
        JobError: the split is shorter than a window.
    """
    source = job.info.input_field
    fields = [source if name == "input" else name for name in objective.FIELDS]
    data = split_files.read(job.file("data", artifacts.split_file(split)), fields)
    if source == "tokens" and data["tokens"].dim() == 1:
        context_length = objective.backbone.context_length
        every = None if split == "train" else context_length
        try:
            data["tokens"] = split_files.windows(data["tokens"], context_length + 1, every)
        except ValueError as error:
            what = f"the {split} split has {error}: lower the model's context_length"
            raise JobError(f"{job.folders['data']}: {what}", ExitCode.DATA) from error
    return data


def configure_torch(threads: int, devices: int = 1) -> None:
    """Make this process compute deterministically, with a number of threads.

    Args:
        threads: of this process.
        devices: with several, one thread is used until their processes are forked.
    """
    # cuBLAS is only deterministic with a fixed workspace, and PyTorch stops without it
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # a check for a GPU must not initialise CUDA, because processes may be forked later
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    torch.set_num_threads(threads if devices == 1 else 1)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")


def fit(
    job: Job,
    settings: TrainingSettings,
    objective: pl.LightningModule,
    train: dict[str, Tensor],
    validation: dict[str, Tensor],
    reinitialised: Sequence[torch.nn.Parameter] = (),
) -> None:
    """Train an objective, and write its history and the weights of its best validation.

    A run that was killed resumes from its last checkpoint, to the same bytes. The files are written
    from the last checkpoint's file.

    Args:
        objective: trained in place. It may define its own `configure_optimizers`.
        train: tensors (n, ...) by field.
        validation: tensors (n, ...) by field; only they decide which weights are kept.
        reinitialised: parameters with new values; see `adaptation.freeze`.

    Raises:
        JobError: the loss is no longer finite, or the job has to stop.
    """
    frozen = adaptation.freeze(objective, settings, reinitialised)
    if not is_overridden("configure_optimizers", objective):
        objective.configure_optimizers = lambda: optimizers.adamw(objective, settings)
    count, missing = flops.per_sample(objective, settings, train)
    job.extra |= {"flops_per_sample": count, "flops_missing_because": missing}
    checkpoints.remove_partial(job.resume_folder)
    state = checkpoints.newest(job.resume_folder)
    finished = state is not None and state["finished"]
    with distributed.processes(job, settings, 1 if finished else settings.devices) as world:
        history = _fit(job, settings, world, objective, frozen, train, validation, state)
    history.restore(checkpoints.newest(job.resume_folder)["history"])
    with job.ledger.spend("write"):
        atomic_files.write(job.output / artifacts.WEIGHTS, save(history.best_weights))
        atomic_files.write(job.output / artifacts.HISTORY, history.as_csv().encode())
    _measure_device(job, settings)
    job.metrics = history.best_metrics() | {
        "parameters": sum(p.numel() for p in objective.parameters()),
        "trained_parameters": sum(p.numel() for p in objective.parameters() if p.requires_grad),
    }
    job.extra["monitor"] = {"metric": objective.MONITOR, "mode": objective.MODE}


def _fit(
    job: Job,
    settings: TrainingSettings,
    world: World,
    objective: pl.LightningModule,
    frozen: list[str],
    train: dict[str, Tensor],
    validation: dict[str, Tensor],
    state: dict[str, Any] | None,
) -> History:
    """Train in one process of a world, from the state in a checkpoint if there is one."""
    device = torch_device(settings.device, world.rank)
    if device.type == "cuda":
        job.ledger.synchronize = torch.cuda.synchronize
        torch.cuda.reset_peak_memory_stats(device)
        peak = partial(torch.cuda.max_memory_allocated, device)
        job.meter.peaks["peak_device_memory_bytes"] = peak
    batches = Batches(
        train,
        settings.batch_size,
        settings.validate_every_steps * settings.gradient_accumulation_steps,
        job.seed,
        job.execution.loader_workers,
        device,
        world.rank,
        world.world_size,
        partial(job.ledger.move, "data_wait"),
    )
    history = History(settings, job.ledger, objective.MONITOR, objective.MODE, world)
    resume = Resume(job, settings, world, batches, history)
    if state:
        resume.load(state)
    if not state or not state["finished"]:
        callbacks = _callbacks(job, settings, resume)
        resume.loop = loop = StepLoop(settings, job.ledger, batches, callbacks)
        trainer = _trainer(job, settings, world, [loop, FreezeModules(frozen), *callbacks])
        held_out = to_device(validation, placement(validation, device))
        sequential = SequentialBatches(held_out, settings.validation_batch_size)
        checkpoint = state and str(job.resume_folder)
        with job.meter.running():
            trainer.fit(objective, Intervals(loop), sequential, ckpt_path=checkpoint)
    return history


def _callbacks(job: Job, settings: TrainingSettings, resume: Resume) -> list[Callback]:
    """Return callbacks in this order: first, a checkpoint is taken; last, EMA swaps weights."""
    world, history = resume.world, resume.history
    seeding = SeedBatches(job.seed, world.rank, world.world_size)
    callbacks: list[Callback] = [resume, seeding, history]
    if settings.early_stopping_patience:
        callbacks.append(EarlyStopping(settings.early_stopping_patience, history))
    if job.execution.progress_seconds:
        callbacks.append(Progress(job.execution.progress_seconds, history, settings.steps))
    if settings.ema_decay:
        callbacks.append(EMA(settings.ema_decay))
    return callbacks


def _trainer(
    job: Job, settings: TrainingSettings, world: World, callbacks: list[Callback]
) -> pl.Trainer:
    intervals = settings.steps // settings.validate_every_steps
    return StepTrainer(
        steps=settings.steps,
        accelerator=settings.device,
        devices=world.world_size,
        strategy=distributed.strategy(settings, world),
        precision=settings.precision,
        max_epochs=min(job.execution.intervals or intervals, intervals),
        accumulate_grad_batches=settings.gradient_accumulation_steps,
        callbacks=callbacks,
        plugins=[distributed.Environment(world), checkpoints.ResumeFolder(job.resume_folder)],
        deterministic=True,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def _measure_device(job: Job, settings: TrainingSettings) -> None:
    """Measure the device's peak, without the memory that this takes."""
    device = torch_device(settings.device)
    if device.type == "cuda":
        trained_bytes = torch.cuda.max_memory_allocated(device)
        job.meter.peaks["peak_device_memory_bytes"] = lambda: trained_bytes
    torch.set_num_threads(settings.threads)
    peak = flops.peak_per_second(device, settings.precision)
    job.meter.notes["peak_flops_per_second"] = peak
