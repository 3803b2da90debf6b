"""Prepare: get a data set, check it and write its splits."""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import auto_cli

from assay import plugins
from assay.data import downloads, split_files, tokenized_splits
from assay.jobs.job import Job, run
from assay.runs import artifacts, execution
from assay.runs.errors import ExitCode, JobError
from assay.runs.execution import Execution

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
        info = {"input": "image", "title": name, **dataset.INFO, **found}
        _check(name, tables, info)
        if info["input"] == "text":
            tables, found = tokenized_splits.tokenize(job, tables, info, Path(aside))
            info |= found
        elif "image" in tables["train"]:
            info["shape"] = tables["train"]["image"].shape[1:]
        with job.ledger.spend("write"):
            for split, fields in tables.items():
                split_files.write(job.output, split, fields)
    job.metrics = {f"{split}_examples": info["examples"][split] for split in artifacts.SPLITS}
    job.extra["info"] = info
    print(f"prepare: {name}, " + ", ".join(f"{k} {v}" for k, v in job.metrics.items()), flush=True)


def _check(name: str, tables: Splits, info: dict[str, Any]) -> None:
    """Hold the data against the info, on which the study's checks rely, and add what lacks."""
    where = plugins.path("dataset", name).name
    if set(tables) != set(artifacts.SPLITS):
        what = f"{where}: prepare() must return {artifacts.SPLITS}, not {tuple(tables)}"
        raise JobError(what, ExitCode.DATA)
    found = {split: _length(fields) for split, fields in tables.items()}
    if found != info.setdefault("examples", found):
        what = f"{where}: INFO['examples'] is {info['examples']}, the data has {found}"
        raise JobError(what, ExitCode.DATA)
    if empty := [split for split, count in found.items() if not count]:
        raise JobError(f"{name}: its {empty[0]} split is empty: give it more data", ExitCode.DATA)
    if "label" in tables["train"]:
        _check_labels(where, tables["train"]["label"], info)


def _check_labels(where: str, labels: np.ndarray, info: dict[str, Any]) -> None:
    fewest = int(np.bincount(labels, minlength=info["classes"]).min())
    if fewest != info.setdefault("labels_per_class", fewest):
        raise JobError(
            f"{where}: INFO['labels_per_class'] is {info['labels_per_class']}, the rarest "
            f"class has {fewest} training examples",
            ExitCode.DATA,
        )


def _length(fields: dict[str, Any]) -> int:
    lengths = {len(column) for column in fields.values()}
    if len(lengths) != 1:
        raise JobError(f"the fields of a split differ in length: {sorted(lengths)}", ExitCode.DATA)
    return lengths.pop()


if __name__ == "__main__":
    auto_cli(prepare, as_positional=False)
