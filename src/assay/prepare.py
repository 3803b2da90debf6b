"""Prepare: get a data set, check it and write its splits."""

from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import auto_cli

from assay import outputs, plugins, splits
from assay.faults import Exit, JobError
from assay.job import Job, run


def prepare(settings: dict[str, Any], output: Path, digest: str | None = None) -> None:
    """Get a data set, check it against what its file states, and write its splits.

    Args:
        settings: JSON with `dataset`: its `name` and its own settings.
        output: the run's folder.
        digest: what the workflow expects this run to be.
    """
    run(_prepare, "prepare", settings, {}, None, output, digest)


def _prepare(job: Job) -> None:
    options = dict(job.settings["dataset"])
    name = options.pop("name")
    dataset = plugins.load("dataset", name)
    with job.ledger.spend("data"):
        tables = dataset.prepare(**options)
        _check(name, dataset.FACTS, tables)
    with job.ledger.spend("write"):
        for split, fields in tables.items():
            splits.write(job.output, split, fields)
    job.metrics = {f"{split}_examples": _length(tables[split]) for split in outputs.SPLITS}
    job.extra["facts"] = dataset.FACTS
    print(f"prepare: {name}, " + ", ".join(f"{k} {v}" for k, v in job.metrics.items()), flush=True)


def _check(name: str, facts: dict[str, Any], tables: dict[str, dict[str, np.ndarray]]) -> None:
    """Hold the data against the facts, on which the study's checks rely."""
    where = plugins.path("dataset", name).name
    if set(tables) != set(outputs.SPLITS):
        what = f"{where}: prepare() must return {outputs.SPLITS}, not {tuple(tables)}"
        raise JobError(what, Exit.DATA)
    found = {split: _length(fields) for split, fields in tables.items()}
    if found != facts["examples"]:
        what = f"{where}: FACTS['examples'] is {facts['examples']}, the data has {found}"
        raise JobError(what, Exit.DATA)
    if "labels_per_class" in facts:
        fewest = int(np.bincount(tables["train"]["label"], minlength=facts["classes"]).min())
        if fewest != facts["labels_per_class"]:
            raise JobError(
                f"{where}: FACTS['labels_per_class'] is {facts['labels_per_class']}, the rarest "
                f"class has {fewest} training examples",
                Exit.DATA,
            )


def _length(fields: dict[str, np.ndarray]) -> int:
    lengths = {len(array) for array in fields.values()}
    if len(lengths) != 1:
        raise JobError(f"the fields of a split differ in length: {sorted(lengths)}", Exit.DATA)
    return lengths.pop()


if __name__ == "__main__":
    auto_cli(prepare, as_positional=False)
