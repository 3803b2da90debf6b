"""Targets and options of Snakemake, and what it prints."""

import json
import re
from pathlib import Path

import pytest
from support.checkout import Checkout

slow = pytest.mark.slow


def test_a_mistyped_target_is_refused_in_one_line_with_a_suggestion(checkout: Checkout) -> None:
    done = checkout.run("snakemake", "-n", "scratch_fw")
    assert done.returncode == 1
    [_, line] = done.stderr.splitlines()  # the first one names the profile
    assert line == "scratch_fw is not a target of this study; did you mean scratch_few?"


def test_a_dry_run_leaves_no_trace(checkout: Checkout) -> None:
    assert checkout.planned() == {
        "prepare": 1, "pretrain": 2, "finetune": 6, "evaluate": 6, "report": 1,
    }  # fmt: skip
    assert not (checkout.folder / "results").exists()
    assert not (checkout.folder / "reports").exists()


TYPED = {
    "a link": (["results/current/digits/finetune/scratch_few/seed0"], {}),
    "-R": (["-R", "finetune"], {"finetune": 6, "evaluate": 6, "report": 1}),
    "--forcerun an experiment": (
        ["scratch_few", "--forcerun", "evaluate"],
        {"evaluate": 2},
    ),
    "--until": (["--until", "finetune", "-F"], {"prepare": 1, "pretrain": 2, "finetune": 6}),
    "--config": (
        ["--config", "seeds=[1,2]", "study=digits"],
        {"pretrain": 1, "finetune": 3, "evaluate": 3, "report": 1},
    ),
    "--config that changes no result": (["--config", "execution={progress_seconds: 3}"], {}),
    "two --configfile": (
        ["--configfile", "config.yaml", "seeds.yaml"],
        {"pretrain": 1, "finetune": 3, "evaluate": 3, "report": 1},
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "typed",
    [
        pytest.param(typed, marks=[] if typed in ("a link", "-R", "--config") else slow)
        for typed in TYPED
    ],
)
def test_options_of_snakemake_select_jobs_as_it_documents(finished: Checkout, typed: str) -> None:
    (finished.folder / "seeds.yaml").write_text("seeds: [2]\n")
    arguments, jobs = TYPED[typed]
    assert finished.planned(*arguments) == jobs


@slow
def test_another_study_stands_alone(checkout: Checkout) -> None:
    study = checkout.study() | {"study": "other", "seeds": [0]}
    del study["experiments"]["frozen_few"], study["report"]["comparisons"]["frozen_few"]
    (checkout.folder / "other.yaml").write_text(json.dumps(study))
    assert checkout.planned("--configfile", "other.yaml") == {
        "prepare": 1, "pretrain": 1, "finetune": 2, "evaluate": 2, "report": 1,
    }  # fmt: skip


@slow
def test_the_results_can_be_in_another_folder(finished: Checkout, tmp_path: Path) -> None:
    done = finished.run("snakemake", "--directory", str(tmp_path), "-n", "scratch_few")
    assert done.returncode == 0 and "would run" in done.stdout
    assert not (tmp_path / "results").exists()
    snakefile = str(finished.folder / "Snakefile")
    words = ["-s", snakefile, "--directory", str(finished.folder), "-n"]
    assert "Nothing to be done" in Checkout(tmp_path).run("snakemake", *words).stdout


@slow
@pytest.mark.parametrize(
    ("option", "shown"),
    (
        ("--summary", "results/finetune/scratch_few/seed0-[0-9a-f]+/weights.safetensors\t.*\tok"),
        ("--dag", "^digraph snakemake_dag"),
        ("--rulegraph", "^digraph snakemake_dag"),
        ("--list-rules", r"(?m)^finetune \(.{30,}\.\)$"),
        ("--lint", "Congratulations, your workflow is in a good condition"),
    ),
)
def test_snakemake_describes_the_workflow(finished: Checkout, option: str, shown: str) -> None:
    done = finished.run("snakemake", option)
    assert done.returncode == 0, done.stderr
    assert re.search(shown, done.stdout + done.stderr * (option == "--lint"))


@slow
def test_snakemake_makes_its_own_report_with_categories(copy: Checkout) -> None:
    copy.snakemake("--report", "snakemake.html")
    text = (copy.folder / "snakemake.html").read_text()
    assert all(word in text for word in ("Figures", "Tables", "A figure of the report"))


@slow
def test_one_core_is_enough_and_the_terminal_shows_what_runs_and_how_much_is_left(
    checkout: Checkout,
) -> None:
    done = checkout.run("snakemake", "--cores", "1", "scratch_few")
    assert done.returncode == 0, done.stderr
    assert "start  finetune scratch_few seed 1" in done.stderr
    assert "[5 of 5]" in done.stderr and " left]" in done.stderr
    assert "wildcards:" not in done.stderr
    [log] = (checkout.folder / ".snakemake/log").iterdir()
    assert "wildcards: name=scratch_few, seed=1" in log.read_text()


@slow
@pytest.mark.parametrize(
    ("option", "shown", "hidden"),
    (
        ("-p", "exec python -m assay.jobs.launch prepare", "would run"),
        ("--verbose", "wildcards: name=digits", "would run"),
        ("--quiet", "", "wildcards"),
    ),
)
def test_a_person_can_choose_what_snakemake_prints(
    checkout: Checkout, option: str, shown: str, hidden: str
) -> None:
    text = checkout.snakemake(option, "--until", "prepare")
    assert shown in text and hidden not in text
