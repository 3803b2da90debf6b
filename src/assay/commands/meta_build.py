"""Build and adapt the networks of trainings without allocating their weights.

This finds configuration errors of trainings that would start hours later, after their pretraining.
A network whose code needs real numbers is built on the CPU, with limits on time and memory.
"""

import json
import os
import resource
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.model_helpers import is_overridden

from assay.runs import errors, identity, records, supervision
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode
from assay.study import signatures
from assay.study.plan import Plan, Run
from assay.study.schema import Study
from assay.study.training_settings import TrainingSettings
from assay.training import adaptation, fit, flops, fsdp
from assay.training.batches import HOST

# The settings that decide whether a network can be built.
SHAPING = ("model", "objective", "lora", "frozen", "unfrozen_blocks", "layer_decay", "fsdp",
           "devices", "precision")  # fmt: skip
PERMANENT = (ExitCode.CODE, ExitCode.DATA)  # errors of a study or of code, not of a machine
LIMIT_SECONDS = 20  # of one build
LIMIT_BYTES = 4 << 30  # of memory beyond what a process starts with


def meta_build() -> None:
    """Read JSON with a `study` and the `folders` of runs; print `refusals` as JSON."""
    request = json.load(sys.stdin)
    torch.set_num_threads(1)
    plan = Plan(Study.from_dict(request["study"]))
    print(json.dumps(refusals([plan.by_folder[folder] for folder in request["folders"]])))


def refusals(due: list[Run]) -> dict[str, list[str]]:
    """Return why trainings cannot start -> their names, such as `finetune/scratch`."""
    chains = [[run, run.parents["weights"]] if "weights" in run.parents else [run] for run in due]
    data = {one.parents["data"].folder: one.parents["data"] for chain in chains for one in chain}
    infos = {folder: _info(run) for folder, run in data.items()}
    tried: dict[str, str | None] = {}
    found: dict[str, list[str]] = {}
    for run, *start in chains:
        equal = identity.canonical([_shape(one) for one in (run, *start)])
        if equal not in tried:
            _end_with_workflow()
            tried[equal] = _refusal(run, infos)
        reason, name = tried[equal], f"{run.stage}/{run.name}"
        if reason and name not in found.setdefault(reason, []):
            found[reason].append(name)
    return found


def _end_with_workflow() -> None:
    workflow = os.environ.get(supervision.PARENT)
    if workflow and not supervision.is_alive(workflow):
        sys.exit(ExitCode.STOPPED)


def _shape(run: Run) -> dict[str, Any]:
    shaping = {key: run.settings[key] for key in SHAPING if key in run.settings}
    return shaping | {"data": run.parents["data"].folder}


def _info(data: Run) -> DataInfo | None:
    """Return what is known of data: everything once prepared, before that what its file states."""
    if Path(data.record).exists():
        return DataInfo.from_record(records.read(Path(data.folder))["info"])
    stated = signatures.info(data.settings["dataset"]["name"])
    return stated if stated.shape else None


def _refusal(run: Run, infos: dict[str, DataInfo | None]) -> str | None:
    """Return why a training cannot start; None if it can, or if that is unknown."""
    downloads = run.settings["model"].get("pretrained")  # the job reports what is missing
    if downloads or infos[run.parents["data"].folder] is None:
        return None
    on_meta = _isolated(run, infos, flops.META)
    return on_meta and _isolated(run, infos, HOST)  # code that needs numbers only fails on meta


def _isolated(run: Run, infos: dict[str, DataInfo | None], device: torch.device) -> str | None:
    """Build in a forked process, so that nothing of it stays; None if it exceeds its limits."""
    parent, (reader, writer) = os.getpid(), os.pipe()
    child = os.fork()
    if not child:
        try:
            for stream in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            supervision.end_with(parent)
            _limit_resources()
            os.write(writer, (_error(run, infos, device) or "").encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        answer = file.read()
    os.waitpid(child, 0)
    return answer or None


def _limit_resources() -> None:
    """End this process if it takes long, and let it fail if it takes much memory."""
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LIMIT_SECONDS)
    if sys.platform == "linux":
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + LIMIT_BYTES, hard))


def _error(run: Run, infos: dict[str, DataInfo | None], device: torch.device) -> str | None:
    """Return the error of building a training's network, if the job would fail with it too."""
    try:
        with device:
            _build(run, infos)
    except Exception as error:  # plug-ins and users' code may raise anything
        code, reason = errors.explain(error, run.settings, Path(run.folder))
        unprepared = not Path(run.parents["data"].record).exists()
        # Before data is prepared, parts of its info are None.
        unknown = unprepared and "NoneType" in str(error)
        return reason if code in PERMANENT and not unknown else None
    return None


def _build(run: Run, infos: dict[str, DataInfo | None]) -> None:
    settings = TrainingSettings.from_dict(run.settings)
    info = infos[run.parents["data"].folder]
    objective = fit.build(settings.model, settings.objective, info, seed=0)
    if start := run.parents.get("weights"):
        _load_pretrained(objective, start, info, infos[start.parents["data"].folder])
    adaptation.add_lora(objective, settings.lora, seed=0)
    adaptation.freeze(objective, settings)
    decay = settings.layer_decay
    if decay and not is_overridden("configure_optimizers", objective):
        adaptation.layer_decay_factors(objective.backbone, decay)
    if settings.fsdp:
        fsdp.check(objective)


def _load_pretrained(
    objective: pl.LightningModule, start: Run, info: DataInfo, pretrained_on: DataInfo | None
) -> None:
    """Load a pretraining's weights, unless that depends on the tokens of two vocabularies."""
    if pretrained_on is None or pretrained_on.vocab_size != info.vocab_size:
        return
    try:
        model, pretext = start.settings["model"], start.settings["objective"]
        weights = fit.build(model, pretext, pretrained_on, seed=0).state_dict()
    except Exception:  # reported for the pretraining itself
        return
    adaptation.load_pretrained(objective, weights, f"{start.stage}/{start.name}")
