"""The whole workflow as its users meet it: typed commands, edits, reruns and what is left."""

import itertools
import json
import os
import shutil
from types import ModuleType

import numpy as np
import pytest
from jsonargparse import auto_cli
from safetensors.numpy import load_file, save_file
from support.checkout import Checkout

from assay import evaluate, finetune, prepare, pretrain, report
from assay.runs import records

slow = pytest.mark.slow
STAGES = ("pretrain", "finetune", "evaluate")
ALL = {"prepare": 1, "pretrain": 2, "finetune": 6, "evaluate": 6, "report": 1}


def files(checkout: Checkout, name: str) -> dict[str, bytes]:
    """Return the content of each run's file of a name, by the run's folder."""
    found = (checkout.folder / "results").glob(f"*/*/*/{name}")
    runs = {path.parent.relative_to(checkout.folder).as_posix(): path for path in found}
    return {run: path.read_bytes() for run, path in runs.items() if "current" not in run}


def metrics(checkout: Checkout) -> dict[str, dict]:
    found = files(checkout, "record.json").items()
    return {run: json.loads(text)["metrics"] for run, text in found}


def test_one_command_leaves_a_report_and_then_there_is_nothing_to_do(finished: Checkout) -> None:
    report = finished.folder / "reports" / "digits"
    for name in ("index.html", "results.csv", "summary.csv", "numbers.tex", "provenance.json",
                 "tables/summary.tex", "figures/scores.pdf", "figures/scores.svg"):  # fmt: skip
        assert (report / name).stat().st_size > 0, name
    assert "Nothing to be done" in finished.snakemake()


def test_every_seed_has_one_pretraining_that_its_experiments_share(finished: Checkout) -> None:
    records = [json.loads(text) for text in files(finished, "record.json").values()]
    starts = {
        (record["name"], record["seed"]): record["parents"].get("weights", {}).get("digest")
        for record in records
        if record["stage"] == "finetune"
    }
    for seed in (0, 1):
        assert starts["finetuned_few", seed] == starts["frozen_few", seed] is not None
        assert starts["scratch_few", seed] is None
    assert starts["frozen_few", 0] != starts["frozen_few", 1]


@slow
def test_a_second_full_run_elsewhere_gives_the_same_bytes(
    finished: Checkout, checkout: Checkout
) -> None:
    checkout.snakemake("--until", "evaluate")
    for name in ("weights.safetensors", "predictions.csv"):
        assert files(checkout, name) == files(finished, name)
    assert metrics(checkout) == metrics(finished)


def test_touching_commenting_reordering_and_copying_reruns_nothing(copy: Checkout) -> None:
    study = copy.study()
    copy.write_study(dict(reversed(study.items())))
    for path in (copy.folder / "src").rglob("*.py"):
        path.write_text(path.read_text() + "\n# a comment\n")
    templates = copy.folder / "src/assay/reporting/templates"
    for name, comment in (("style.css", "/* a comment */"), ("index.html.j2", "{# a comment #}")):
        (templates / name).write_text((templates / name).read_text() + comment + "\n")
    for path in copy.folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            os.utime(path)
    shutil.rmtree(copy.folder / ".snakemake")
    assert copy.planned() == {}


def in_order(copy: Checkout, *stages: str) -> None:
    """Date the runs of stages one second after the other, and let Snakemake forget them."""
    for second, stage in enumerate(stages):
        for path in (copy.folder / "results" / stage).rglob("*"):
            if path.is_file():
                os.utime(path, (1e9 + second, 1e9 + second))
    shutil.rmtree(copy.folder / ".snakemake", ignore_errors=True)


@slow
def test_a_copy_whose_parents_are_dated_last_reruns_nothing(copy: Checkout) -> None:
    in_order(copy, "evaluate", "finetune", "pretrain", "prepare")
    assert copy.planned() == {}


@slow
def test_a_parent_with_other_content_reruns_what_was_made_from_it(copy: Checkout) -> None:
    [folder, _] = (copy.folder / "results/pretrain/self_supervised").iterdir()
    record = records.read(folder)
    path = folder / "weights.safetensors"
    save_file({name: np.asarray(kept + 1) for name, kept in load_file(path).items()}, path)
    records.write(folder, {k: v for k, v in record.items() if k not in ("checksum", "files")})
    in_order(copy, "evaluate", "finetune", "prepare", "pretrain")
    assert copy.planned() == {"finetune": 2, "evaluate": 2, "report": 1}


def test_an_edit_reruns_what_it_affects_and_going_back_reruns_no_training(copy: Checkout) -> None:
    copy.edit("config.yaml", "head: 0.01", "head: 0.02")
    text = copy.snakemake()
    assert "done   finetune frozen_few seed 1" in text
    assert "learning_rate.head: 0.01 -> 0.02" in text
    assert "[5 of 5]" in text  # two trainings, two evaluations, a report
    copy.edit("config.yaml", "head: 0.02", "head: 0.01")
    assert copy.planned() == {"report": 1}


def test_a_changed_line_of_code_reruns_what_uses_it(copy: Checkout) -> None:
    copy.edit("src/assay/reporting/figures.py", "alpha=0.6", "alpha=0.5")
    assert copy.planned() == {"report": 1}
    copy.edit("src/assay/reporting/figures.py", "alpha=0.5", "alpha=0.6")
    copy.edit("src/assay/objectives/vicreg.py", "1e-4", "1e-5")
    assert copy.planned() == {"pretrain": 2, "finetune": 4, "evaluate": 4, "report": 1}


@slow
def test_a_changed_model_or_page_reruns_what_uses_it(copy: Checkout) -> None:
    copy.edit("src/assay/models/cnn.py", "mean((2, 3))", "amax((2, 3))")
    assert copy.planned() == {name: n for name, n in ALL.items() if name != "prepare"}
    copy.edit("src/assay/models/cnn.py", "amax((2, 3))", "mean((2, 3))")
    copy.edit("src/assay/reporting/templates/style.css", "74rem", "75rem")
    assert copy.planned() == {"report": 1}


@slow
def test_links_without_hashes_follow_the_study_even_if_no_job_is_due(copy: Checkout) -> None:
    link = copy.folder / "results/current/digits/finetune/scratch_few/seed0"
    before = os.readlink(link)
    copy.edit("config.yaml", "weight_decay: 0.01", "weight_decay: 0.02")
    copy.snakemake("finetune/scratch_few/seed0")
    assert os.readlink(link) != before
    assert (link / "record.json").exists()
    copy.edit("config.yaml", "weight_decay: 0.02", "weight_decay: 0.01")
    assert "Nothing to be done" in copy.snakemake("--until", "finetune")
    assert os.readlink(link) == before


def test_a_log_tells_step_loss_rate_and_remaining_time(finished: Checkout) -> None:
    text = files(finished, "log.txt")
    last = next(log.decode() for run, log in text.items() if "finetune/scratch" in run)
    for word in ("step 6/6", "loss ", "examples/s", "s left", "validation_accuracy"):
        assert word in last


def test_a_failed_run_stops_only_what_needs_it_and_the_report_says_why(copy: Checkout) -> None:
    study = copy.study() | {"seeds": [0]}
    study["experiments"]["broken"] = {
        "pretraining": "none",
        "objective": {"name": "failing", "label_smoothing": 0.0, "augmentation": 0.0},
    }
    source = (copy.folder / "src/assay/objectives/classification.py").read_text()
    fault = "raise RuntimeError('a <b>broken</b> step')"
    source = source.replace("class Classification", "class Failing")
    assert "inputs = batch[self.input]\n" in source
    source = source.replace(
        "inputs = batch[self.input]\n", f"{fault}\n        inputs = batch[self.input]\n"
    )
    (copy.folder / "src/assay/objectives/failing.py").write_text(source)
    copy.write_study(study)
    done = copy.run("snakemake", "--cores", "2")
    assert done.returncode != 0
    page = (copy.folder / "reports/digits/index.html").read_text()
    assert "finetune failed: RuntimeError: a &lt;b&gt;broken&lt;/b&gt; step" in page
    assert "scratch_few" in page
    assert "0 of 1" in page
    source = source.replace(fault, "pass")
    (copy.folder / "src/assay/objectives/failing.py").write_text(source)
    assert copy.planned() == {"finetune": 1, "evaluate": 1, "report": 1}
    copy.snakemake()
    assert "RuntimeError" not in (copy.folder / "reports/digits/index.html").read_text()


@slow
def test_no_stage_but_evaluate_needs_the_test_split(copy: Checkout) -> None:
    shutil.rmtree(copy.folder / "results/finetune")
    [test] = (copy.folder / "results/prepare/digits").glob("*/test.safetensors")
    settings = next(iter(files(copy, "record.json")))
    assert settings
    test.write_bytes(b"")
    copy.snakemake("finetune/frozen_few/seed0", "--rerun-triggers", "mtime", "--allowed-rules",
                   "finetune")  # fmt: skip


@pytest.mark.slow
def test_code_that_was_edited_while_the_workflow_ran_makes_no_result(copy: Checkout) -> None:
    [folder] = (copy.folder / "results/finetune/scratch_few").glob("seed0-*")
    record = json.loads((folder / "record.json").read_text())
    done = copy.run(
        "python", "-m", "assay.finetune", "--settings", json.dumps(record["settings"]),
        "--seed", "0", "--data", record["parents"]["data"]["folder"], "--digest", "0" * 16,
        "--output", "elsewhere/seed0",
    )  # fmt: skip
    assert done.returncode == 78
    assert "was changed after snakemake was started" in done.stderr
    assert not (copy.folder / "elsewhere/seed0/record.json").exists()


@pytest.mark.parametrize("stage", (prepare, pretrain, finetune, evaluate, report))
def test_every_stage_can_be_run_by_hand_and_explains_itself(
    stage: ModuleType, capsys: pytest.CaptureFixture
) -> None:
    function = getattr(stage, stage.__name__.rpartition(".")[2])
    with pytest.raises(SystemExit):
        auto_cli(function, as_positional=False, args=["--help"])
    shown = capsys.readouterr().out
    assert "--output" in shown and "settings" in shown


@slow
def test_a_container_that_grants_one_core_gets_one_job_whose_threads_do_not_spin(
    checkout: Checkout,
) -> None:
    words = """print({v: os.environ.get(v) for v in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS")})"""
    checkout.edit("src/assay/models/cnn.py", "import math\n", "import math, os\n" + words + "\n")
    done = checkout.run("env", "LOKY_MAX_CPU_COUNT=1", "snakemake", "scratch_few")
    assert done.returncode == 0, done.stderr
    jobs = [
        json.loads(path.read_text())
        for path in checkout.folder.glob("results/[ef]*/*/*/record.json")
    ]
    spans = sorted((job["started"], job["finished"]) for job in jobs)
    assert len(spans) == 4
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans))
    for log in checkout.folder.glob("results/[ef]*/*/*/log.txt"):
        assert "{'OMP_WAIT_POLICY': 'passive', 'OMP_NUM_THREADS': '1'}" in log.read_text()


def test_a_training_that_is_wider_than_the_machine_is_refused(checkout: Checkout) -> None:
    done = checkout.run("snakemake", "--cores", "2", "--config", "threads=3")
    assert done.returncode == 1
    assert "config.yaml: a training takes 3 threads" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (checkout.folder / "results/prepare").exists()
