"""`assay store`: what results/ contains, and the deletion of runs that no study uses."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.checkout import Checkout
from support.workflows import only

from assay.runs import locks, records


def drop_an_experiment(checkout: Checkout) -> None:
    study = checkout.study()
    del study["experiments"]["frozen_few"]
    del study["report"]["comparisons"]["frozen_few"]
    checkout.write_study(study)


def test_the_store_shows_and_removes_runs_that_no_study_uses(
    inside: Checkout, assay: Callable[..., str], as_json: Callable
) -> None:
    assert "unused 0 0 B" in assay("store")
    drop_an_experiment(inside)
    text = assay("store")
    assert "unused 4" in text
    assert "results/evaluate/frozen_few/seed0-" in text
    assert "There is no terminal to ask on: repeat with --yes" in assay("store", "--remove", code=1)
    assert only(inside, "evaluate/frozen_few/seed0-*")
    unused = [run for run in as_json("store")["runs"] if not run["studies"]]
    assert {Path(run["folder"]).parent.name for run in unused} == {"frozen_few"}
    assert "Deleted 4 runs" in assay("store", "--remove", "--yes")
    assert not list(inside.folder.glob("results/*/frozen_few"))
    assert len(list(inside.folder.glob("results/finetune/*/*"))) == 4


@pytest.mark.slow
def test_runs_of_a_value_on_the_command_line_are_used(
    inside: Checkout, assay: Callable[..., str]
) -> None:
    inside.snakemake("--until", "finetune", "--config", "seeds=[7]")
    assert "seed7" not in assay("store").partition("unused")[2]


@pytest.mark.parametrize("answer", ("n", "y"))
def test_a_question_comes_before_a_deletion(copy: Checkout, answer: str) -> None:
    copy.edit("config.yaml", "label_smoothing: 0.0", "label_smoothing: 0.1")
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    done = subprocess.run(
        [sys.executable, "-m", "assay", "store", "--remove"], cwd=copy.folder, stdin=theirs,
        env=copy.environment, capture_output=True, text=True,
    )  # fmt: skip
    assert "Delete these 12 runs" in done.stderr
    assert done.returncode == (answer == "n")
    assert len(list(copy.folder.glob("results/finetune/*/*"))) == (6 if answer == "n" else 0)
    assert only(copy, "pretrain/self_supervised/seed0-*")


@pytest.mark.slow
def test_runs_of_a_study_whose_file_is_elsewhere_are_used(
    inside: Checkout, assay: Callable[..., str], tmp_path: Path
) -> None:
    study = inside.study()
    study["study"] = "elsewhere"
    study["experiments"] = {"mine": study["experiments"]["scratch_few"]}
    study["report"]["comparisons"] = {}
    (tmp_path / "mine.yaml").write_text(json.dumps(study))
    inside.snakemake("--configfile", str(tmp_path / "mine.yaml"))
    text = assay("store")
    assert "study elsewhere 5" in text
    assert "unused 0" in text


def test_runs_of_a_study_that_is_named_are_used(
    inside: Checkout, assay: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "all.yaml").write_text((inside.folder / "config.yaml").read_text())
    drop_an_experiment(inside)
    assert "unused 0" in assay("store", "--study", str(tmp_path / "all.yaml"))


def test_nothing_is_deleted_while_a_snakemake_runs(
    inside: Checkout, assay: Callable[..., str]
) -> None:
    drop_an_experiment(inside)
    with locks.acquire(locks.WORKFLOW):
        text = assay("store", "--remove", "--yes", code=1)
    assert f"A snakemake is running in this folder: process {os.getpid()}" in text
    assert only(inside, "evaluate/frozen_few/seed0-*")


def test_a_run_is_kept_while_a_process_works_on_it(
    inside: Checkout, assay: Callable[..., str]
) -> None:
    drop_an_experiment(inside)
    run = only(inside, "evaluate/frozen_few/seed0-*")
    with locks.acquire(run / records.LOCK):
        text = assay("store", "--remove", "--yes")
        assert f"kept, because process {os.getpid()}" in text and "Deleted 3 runs" in text
        assert (run / "record.json").exists()
    assert "Deleted 1 runs" in assay("store", "--remove", "--yes")
