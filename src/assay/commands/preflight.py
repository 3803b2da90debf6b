"""Rehearse: try each training that is due, on shapes alone, before the first of them begins.

So a mistake in what begins after hours of pretraining is told at once. What a job does in the same
way, building and adapting its network, can refuse a study. A step can only raise a doubt, for there
is no trainer and no data.
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
from torch import Tensor

from assay.runs import errors, identity, records, supervision
from assay.runs.data_info import DataInfo
from assay.runs.errors import ExitCode
from assay.study import signatures
from assay.study.plan import Plan, Run
from assay.training import adaptation, fit, flops, fsdp
from assay.training.batches import HOST

# What decides whether a training can begin. The others are numbers that a check has seen.
SHAPING = ("model", "objective", "lora", "frozen", "unfrozen_blocks", "layer_decay", "fsdp",
           "batch_size", "devices", "precision")  # fmt: skip
FINE, UNKNOWN, DOUBTFUL, REFUSED = "fine", "unknown", "doubtful", "refused"
OURS = (ExitCode.CODE, ExitCode.DATA)  # faults of a study or of code, not of this moment or machine
PREPARING = ("setup", "configure_model", "on_fit_start", "on_train_start", "on_train_epoch_start")
MISSING = ("not attached to a `Trainer`", "process group has not been initialized")
LIMIT_SECONDS = 20  # for one attempt
LIMIT_BYTES = 4 << 30  # of memory beyond what a process begins with

Verdict = tuple[str, str]  # one of the four, and why


def preflight() -> None:
    """Read JSON, a `study` and the `folders` of the runs that are due; print `verdicts` as JSON."""
    given = json.load(sys.stdin)
    torch.set_num_threads(1)
    plan = Plan(given["study"])
    print(json.dumps(verdicts([plan.by_folder[folder] for folder in given["folders"]])))


def verdicts(due: list[Run]) -> dict[str, dict[str, list[str]]]:
    """Which trainings are refused or doubtful: verdict -> why -> names."""
    chains = [[run, run.parents["weights"]] if "weights" in run.parents else [run] for run in due]
    data = {one.parents["data"].folder: one.parents["data"] for chain in chains for one in chain}
    known = {folder: _info(run) for folder, run in data.items()}
    tried: dict[str, Verdict] = {}
    found: dict[str, dict[str, list[str]]] = {REFUSED: {}, DOUBTFUL: {}}
    for run, *start in chains:
        alike = identity.canonical([_shape(one) for one in (run, *start)])
        if alike not in tried:
            _end_with_workflow()
            tried[alike] = _verdict(run, known)
        (verdict, why), name = tried[alike], f"{run.stage}/{run.name}"
        if verdict in found and name not in found[verdict].setdefault(why, []):
            found[verdict][why].append(name)
    return found


def _end_with_workflow() -> None:
    marked = os.environ.get(supervision.PARENT)
    if marked and not supervision.is_alive(marked):
        sys.exit(ExitCode.STOPPED)


def _shape(run: Run) -> dict[str, Any]:
    shaping = {key: run.settings[key] for key in SHAPING if key in run.settings}
    return shaping | {"data": run.parents["data"].folder}


def _info(data: Run) -> DataInfo | None:
    """What is known of data: all once it is prepared, and before that what its file states."""
    if Path(data.record).exists():
        return DataInfo.from_record(records.read(Path(data.folder))["info"])
    stated = signatures.info(data.settings["dataset"]["name"])
    return stated if stated.shape else None


def _verdict(run: Run, known: dict[str, DataInfo | None]) -> Verdict:
    """Whether a training can begin. Code that needs numbers gets some."""
    fetched = run.settings["model"].get("pretrained")  # the job says what is missing
    if fetched or known[run.parents["data"].folder] is None:
        return UNKNOWN, ""
    verdict = _apart(run, known, flops.META)
    return verdict if verdict[0] == FINE else _apart(run, known, HOST)


def _apart(run: Run, known: dict[str, DataInfo | None], place: torch.device) -> Verdict:
    """An attempt in a process of its own, of which nothing stays; unknown if it takes too much."""
    parent, (heard, said) = os.getpid(), os.pipe()
    child = os.fork()
    if not child:
        try:
            for stream in (1, 2):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            supervision.end_with(parent)
            _limit()
            os.write(said, json.dumps(_attempt(run, known, place)).encode())
        finally:
            os._exit(0)
    os.close(said)
    with os.fdopen(heard) as file:
        answer = file.read()
    os.waitpid(child, 0)
    return tuple(json.loads(answer)) if answer else (UNKNOWN, "")


def _limit() -> None:
    """Let this process end where it takes long, and fail where it takes much memory."""
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(LIMIT_SECONDS)
    if sys.platform == "linux":
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, highest = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (taken + LIMIT_BYTES, highest))


def _attempt(run: Run, known: dict[str, DataInfo | None], place: torch.device) -> Verdict:
    at_fault = REFUSED
    try:
        with place:
            objective = _begun(run, known)
            at_fault = DOUBTFUL
            _step(objective, run.settings, known[run.parents["data"].folder], place)
    except Exception as error:  # plug-ins and users' code may raise anything
        code, why = errors.explain(error, run.settings, Path(run.folder))
        prepared = Path(run.parents["data"].record).exists()  # else info may be None
        unknown = (*MISSING, *([] if prepared else ["NoneType"]))
        sure = code in OURS and not any(words in str(error) for words in unknown)
        return (at_fault, why) if sure else (UNKNOWN, "")
    return FINE, ""


def _begun(run: Run, known: dict[str, DataInfo | None]) -> pl.LightningModule:
    settings, info = run.settings, known[run.parents["data"].folder]
    objective = fit.build(settings, info, seed=0)
    if start := run.parents.get("weights"):
        _take_over(objective, start, info, known[start.parents["data"].folder])
    adaptation.add(objective, settings, seed=0)
    adaptation.choose(objective, settings)
    decay = settings.get("layer_decay")
    if decay and not is_overridden("configure_optimizers", objective):
        adaptation.factors(objective.backbone, decay)
    if settings.get("fsdp"):
        fsdp.check(objective)
    return objective


def _take_over(
    objective: pl.LightningModule, start: Run, info: DataInfo, before: DataInfo | None
) -> None:
    """Start from a pretraining, but for what depends on two vocabularies."""
    if before is None or before.vocab_size != info.vocab_size:
        return
    try:
        weights = fit.build(start.settings, before, seed=0).state_dict()
    except Exception:  # which is told of the pretraining itself
        return
    adaptation.start(objective, weights, f"{start.stage}/{start.name}")


def _step(
    objective: pl.LightningModule, settings: dict[str, Any], info: DataInfo, place: torch.device
) -> None:
    """Take a step, but with modules that prepare for it elsewhere or may need a trainer."""
    elsewhere = place == HOST and settings["device"] == "gpu"
    needy = not objective.automatic_optimization or settings["objective"]["name"] == "lightning"
    if elsewhere or needy or any(is_overridden(hook, objective) for hook in PREPARING):
        return
    count = settings["batch_size"] // settings["devices"]
    batch = _batch(objective, info, count)
    if batch is None:
        return
    objective.train()
    with fit.autocast(settings | {"device": "cpu"}):
        output = objective.training_step(batch, 0)
    loss = output.get("loss") if isinstance(output, dict) else output
    if loss is not None and loss.requires_grad:
        loss.backward()


def _batch(objective: pl.LightningModule, info: DataInfo, count: int) -> dict[str, Tensor] | None:
    """Examples of the data's form; None where an objective reads more than is known of here."""
    found = {"label": torch.arange(count) % (info.classes or 1)}
    if info.is_text:
        length = info.max_length or objective.backbone.context_length + 1
        tokens = torch.arange(count * length) % info.vocab_size
        kind, found["tokens"] = "tokens", tokens.view(count, length)
    else:
        kind, found["image"] = "image", torch.rand(count, *info.shape)
    fields = [kind if name == "input" else name for name in objective.FIELDS]
    return {name: found[name] for name in fields} if set(fields) <= found.keys() else None
