"""Rehearse: before the first training begins, take a step of each on shapes alone.

So a mistake in what begins after hours of pretraining is told at once.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from assay import adaptation, faults, flops, identity, records, sharding, signatures, training
from assay.batches import HOST
from assay.faults import Exit
from assay.plan import Plan, Run

# What decides whether a training can begin. The others are numbers that a check has seen.
SHAPING = ("model", "objective", "lora", "frozen", "trained_blocks", "layer_decay", "sharded")
OURS = (Exit.CODE, Exit.DATA)  # faults of a study or of code, not of this moment or machine
EXAMPLES = 4  # or more, where an objective wants more
UNKNOWN = "lightning"  # a user's module may need its trainer


def rehearse() -> None:
    """Read JSON, a `study` and the `folders` of the runs that are due; end with what is wrong."""
    given = json.load(sys.stdin)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    plan = Plan(given["study"])
    found = obstacles([plan.by_folder[folder] for folder in given["folders"]])
    for why, names in found.items():
        print(f"{', '.join(names)}: {why}", file=sys.stderr)
    sys.exit(Exit.CODE if found else 0)


def obstacles(due: list[Run]) -> dict[str, list[str]]:
    """Why trainings could not begin, of those whose data are known, and which."""
    chains = [[run, run.parents["weights"]] if "weights" in run.parents else [run] for run in due]
    data = {one.parents["data"].folder: one.parents["data"] for chain in chains for one in chain}
    known = {folder: _facts(run) for folder, run in data.items()}
    tried: dict[str, str | None] = {}
    found: dict[str, list[str]] = {}
    for run, *start in chains:
        alike = identity.canonical([_shape(one) for one in (run, *start)])
        if alike not in tried:
            tried[alike] = _obstacle(run, known)
        why, name = tried[alike], f"{run.stage}/{run.name}"
        if why and name not in found.setdefault(why, []):
            found[why].append(name)
    return found


def _shape(run: Run) -> dict[str, Any]:
    shaping = {key: run.settings[key] for key in SHAPING if key in run.settings}
    return shaping | {"data": run.parents["data"].folder}


def _facts(data: Run) -> dict[str, Any] | None:
    """What is known of data: all once it is prepared, and before that what its file states."""
    if Path(data.record).exists():
        return records.read(Path(data.folder))["facts"]
    stated = signatures.facts(data.settings["dataset"]["name"])
    return stated if "shape" in stated else None


def _obstacle(run: Run, known: dict[str, Any]) -> str | None:
    """Why a training cannot begin; None where it can, or where that is not known.

    Code that needs numbers gets some.
    """
    for place in (flops.META, HOST):
        try:
            with place:
                _begin(run, known)
            return None
        except Exception as error:  # plug-ins and users' code may raise anything
            code, why = faults.explain(error, run.settings, Path(run.folder))
    return why if code in OURS else None


def _begin(run: Run, known: dict[str, Any]) -> None:
    settings, facts = run.settings, known[run.parents["data"].folder]
    if not facts:
        return
    objective = training.build(settings, facts, seed=0)
    if start := run.parents.get("weights"):
        _take_over(objective, start, facts, known[start.parents["data"].folder])
    adaptation.add(objective, settings, seed=0)
    adaptation.choose(objective, settings)
    if decay := settings.get("layer_decay"):
        adaptation.factors(objective.backbone, decay)
    if settings.get("sharded"):
        sharding.check(objective)
    batch = _batch(objective, facts)
    if batch and settings["objective"]["name"] != UNKNOWN:
        flops.of_step(objective, batch)


def _take_over(
    objective: pl.LightningModule, start: Run, facts: dict[str, Any], before: dict[str, Any] | None
) -> None:
    """Start from a pretraining, but for what depends on two vocabularies."""
    if before and before.get("vocabulary") == facts.get("vocabulary"):
        weights = training.build(start.settings, before, seed=0).state_dict()
        adaptation.start(objective, weights, f"{start.stage}/{start.name}")


def _batch(objective: pl.LightningModule, facts: dict[str, Any]) -> dict[str, Tensor] | None:
    """Examples of the data's form; None where an objective reads more than is known of here."""
    count = max(EXAMPLES, 2 * getattr(objective, "SMALLEST_BATCH", 1))
    found = {"label": torch.zeros(count, dtype=torch.long)}
    if facts.get("input") == "text":
        length = facts.get("tokens_per_text") or objective.backbone.context + 1
        found["tokens"] = torch.zeros(count, length, dtype=torch.long)
        fields = [name.replace("input", "tokens") for name in objective.FIELDS]
    else:
        found["image"] = torch.zeros(count, *facts["shape"])
        fields = [name.replace("input", "image") for name in objective.FIELDS]
    return {name: found[name] for name in fields} if set(fields) <= found.keys() else None
