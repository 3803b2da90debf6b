"""Prepare: get a data set, check it and write its splits."""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import auto_cli

from assay import downloads, execution, outputs, plugins, splits, texts
from assay.execution import Execution
from assay.faults import Exit, JobError
from assay.job import Job, run

Splits = dict[str, dict[str, Any]]


def prepare(
    settings: dict[str, Any],
    output: Path,
    tokenizer: Path | None = None,
    digest: str | None = None,
    execution: Execution = execution.DEFAULT,
) -> None:
    """Get a data set, check it against what its file states, and write its splits.

    Args:
        settings: JSON with `dataset`: its `name` and its own settings; and perhaps `tokenizer`.
        output: the run's folder.
        tokenizer: folder of prepared data whose tokenizer is to be used.
        digest: what the workflow expects this run to be.
        execution: how it is carried out; it changes no result.
    """
    parents = {"tokenizer": tokenizer} if tokenizer else {}
    run(_prepare, "prepare", settings, parents, None, output, digest, execution)


def _prepare(job: Job) -> None:
    options = dict(job.settings["dataset"])
    name = options.pop("name")
    dataset = plugins.load("dataset", name)
    if job.execution.data_folder:
        os.environ[downloads.OWN] = job.execution.data_folder
    # Below what is for a killed run alone: nothing of it can come among the run's files.
    with tempfile.TemporaryDirectory(dir=job.resume_folder) as aside, job.ledger.spend("data"):
        tempfile.tempdir = aside  # what a data set puts aside may be too much for the system's
        made = dataset.prepare(**options)
        tables, found = made if isinstance(made, tuple) else (made, {})
        facts = {"input": "image", "title": name, **dataset.FACTS, **found}
        _check(name, tables, facts)
        if facts["input"] == "text":
            tables, found = texts.tokenize(job, tables, facts, Path(aside))
            facts |= found
        elif "image" in tables["train"]:
            facts["shape"] = tables["train"]["image"].shape[1:]
        with job.ledger.spend("write"):
            for split, fields in tables.items():
                splits.write(job.output, split, fields)
    job.metrics = {f"{split}_examples": facts["examples"][split] for split in outputs.SPLITS}
    job.extra["facts"] = facts
    print(f"prepare: {name}, " + ", ".join(f"{k} {v}" for k, v in job.metrics.items()), flush=True)


def _check(name: str, tables: Splits, facts: dict[str, Any]) -> None:
    """Hold the data against the facts, on which the study's checks rely, and add what lacks."""
    where = plugins.path("dataset", name).name
    if set(tables) != set(outputs.SPLITS):
        what = f"{where}: prepare() must return {outputs.SPLITS}, not {tuple(tables)}"
        raise JobError(what, Exit.DATA)
    found = {split: _length(fields) for split, fields in tables.items()}
    if found != facts.setdefault("examples", found):
        what = f"{where}: FACTS['examples'] is {facts['examples']}, the data has {found}"
        raise JobError(what, Exit.DATA)
    if empty := [split for split, count in found.items() if not count]:
        raise JobError(f"{name}: its {empty[0]} split is empty: give it more data", Exit.DATA)
    if "label" in tables["train"]:
        _check_labels(where, tables["train"]["label"], facts)


def _check_labels(where: str, labels: np.ndarray, facts: dict[str, Any]) -> None:
    fewest = int(np.bincount(labels, minlength=facts["classes"]).min())
    if fewest != facts.setdefault("labels_per_class", fewest):
        raise JobError(
            f"{where}: FACTS['labels_per_class'] is {facts['labels_per_class']}, the rarest "
            f"class has {fewest} training examples",
            Exit.DATA,
        )


def _length(fields: dict[str, Any]) -> int:
    lengths = {len(column) for column in fields.values()}
    if len(lengths) != 1:
        raise JobError(f"the fields of a split differ in length: {sorted(lengths)}", Exit.DATA)
    return lengths.pop()


if __name__ == "__main__":
    auto_cli(prepare, as_positional=False)
