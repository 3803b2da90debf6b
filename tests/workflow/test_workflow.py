"""The whole workflow as its users meet it: typed commands, edits, reruns and what is left."""

import itertools
import json
import os
import re
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.checkout import Checkout, tiny_study

from assay.runs import records

STAGES = ("pretrain", "finetune", "evaluate")
ALL = {"prepare": 1, "pretrain": 2, "finetune": 6, "evaluate": 6, "report": 1}

OUR_DATASET = '''
"""Two classes of noise."""

import numpy as np

from assay.runs.data_info import DataInfo

INFO = DataInfo(
    shape=(1, 4, 4),
    classes=2,
    examples={"train": 60, "validation": 20, "test": 20},
    labels_per_class=30,
)


def prepare(*, contrast: float):
    """Noise, brighter for class 1."""
    random = np.random.default_rng(0)

    def split(count):
        label = np.arange(count) % 2
        image = random.random((count, 1, 4, 4)) * 0.5 + contrast * label[:, None, None, None]
        return {"image": image.astype(np.float32), "label": label}

    return {name: split(count) for name, count in INFO.examples.items()}
'''
OUR_MODEL = '''
"""One hidden layer."""

from math import prod

from torch import nn


def build(info, *, hidden: int):
    """A perceptron."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(prod(info.shape), hidden), nn.ReLU())
    network.features = hidden
    return network
'''
OUR_OBJECTIVE = '''
"""Learning to copy the image."""

from math import prod

import pytorch_lightning as pl
import torch
from torch import nn


class CopyImage(pl.LightningModule):
    """Mean squared error, with an optimizer of its own."""

    FIELDS = ("image",)
    MONITOR = "validation_loss"
    MODE = "min"

    def __init__(self, backbone, info, *, scale: float):
        super().__init__()
        self.backbone = backbone
        self.decoder = nn.Linear(backbone.features, prod(info.shape))
        self.scale = scale

    def training_step(self, batch, index):
        image = batch["image"]
        return self.scale * (self.decoder(self.backbone(image)) - image.flatten(1)).pow(2).mean()

    def validation_step(self, batch, index):
        self.log("validation_loss", self.training_step(batch, index))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
'''


def files(checkout: Checkout, name: str) -> dict[str, bytes]:
    """Content of each run's file of a name, by the run's folder."""
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
    assert copy.planned() == {}
    shutil.rmtree(copy.folder / ".snakemake")
    assert copy.planned() == {}


def in_order(copy: Checkout, *stages: str) -> None:
    """Date the runs of stages one after the other."""
    for stage in stages:
        for path in sorted((copy.folder / "results" / stage).rglob("*")):
            if path.is_file():
                os.utime(path)
        time.sleep(0.05)
    shutil.rmtree(copy.folder / ".snakemake", ignore_errors=True)


def test_a_copy_whose_parents_are_dated_last_reruns_nothing(copy: Checkout) -> None:
    in_order(copy, "evaluate", "finetune", "pretrain", "prepare")
    assert copy.planned() == {}


def test_a_parent_that_is_another_one_by_now_reruns_what_was_made_from_it(copy: Checkout) -> None:
    [folder, _] = (copy.folder / "results/pretrain/self_supervised").iterdir()
    record = records.read(folder)
    path = folder / "weights.safetensors"
    save_file({name: np.asarray(kept + 1) for name, kept in load_file(path).items()}, path)
    records.write(folder, {k: v for k, v in record.items() if k not in ("checksum", "files")})
    in_order(copy, "evaluate", "finetune", "prepare", "pretrain")
    assert copy.planned() == {"finetune": 2, "evaluate": 2, "report": 1}


def test_another_learning_rate_reruns_no_pretraining_and_going_back_reruns_no_training(
    copy: Checkout,
) -> None:
    copy.edit("config.yaml", "head: 0.003", "head: 0.0015")
    changed = 2 * sum("head" not in str(e.get("learning_rate", "")) or
                      e["learning_rate"]["head"] == 0.0015
                      for e in copy.study()["experiments"].values())  # fmt: skip
    assert copy.planned() == {"finetune": changed, "evaluate": changed, "report": 1}
    copy.snakemake()
    copy.edit("config.yaml", "head: 0.0015", "head: 0.003")
    assert copy.planned() == {"report": 1}


def test_a_changed_line_reruns_what_uses_it(copy: Checkout) -> None:
    copy.edit("src/assay/models/cnn.py", "mean((2, 3))", "amax((2, 3))")
    assert copy.planned() == {name: n for name, n in ALL.items() if name != "prepare"}
    copy.edit("src/assay/models/cnn.py", "amax((2, 3))", "mean((2, 3))")
    copy.edit("src/assay/reporting/figures.py", "alpha=0.6", "alpha=0.5")
    assert copy.planned() == {"report": 1}
    copy.edit("src/assay/reporting/figures.py", "alpha=0.5", "alpha=0.6")
    copy.edit("src/assay/reporting/templates/style.css", "74rem", "75rem")
    assert copy.planned() == {"report": 1}
    copy.edit("src/assay/reporting/templates/style.css", "75rem", "74rem")
    copy.edit("src/assay/objectives/vicreg.py", "1e-4", "1e-5")
    assert copy.planned() == {"pretrain": 2, "finetune": 4, "evaluate": 4, "report": 1}


@pytest.mark.parametrize(
    ("target", "jobs"),
    [
        ("finetune", {"prepare": 1, "pretrain": 2, "finetune": 6}),
        ("scratch_few", {"prepare": 1, "finetune": 2, "evaluate": 2}),
        ("pretrain/self_supervised/seed1", {"prepare": 1, "pretrain": 1}),
        ("results/current/digits/finetune/scratch_few/seed0", {"prepare": 1, "finetune": 1}),
        ("reports/digits/index.html", ALL),
    ],
)
def test_a_person_can_name_a_stage_an_experiment_or_a_path(
    checkout: Checkout, target: str, jobs: dict[str, int]
) -> None:
    assert checkout.planned(target) == jobs


def test_a_mistyped_target_is_an_error(checkout: Checkout) -> None:
    done = checkout.run("snakemake", "-n", "scrach_few")
    assert done.returncode != 0
    assert "scrach_few" in done.stdout + done.stderr


def test_forcing_a_stage_reruns_it_and_what_follows(copy: Checkout) -> None:
    assert copy.planned("-R", "finetune") == {"finetune": 6, "evaluate": 6, "report": 1}
    assert copy.planned("--until", "finetune", "-F") == {"prepare": 1, "pretrain": 2, "finetune": 6}


def test_links_without_digests_follow_the_study(copy: Checkout) -> None:
    link = copy.folder / "results/current/digits/finetune/scratch_few/seed0"
    before = os.readlink(link)
    assert (link / "record.json").exists()
    copy.edit("config.yaml", "weight_decay: 0.01", "weight_decay: 0.02")
    copy.snakemake("finetune/scratch_few/seed0")
    assert os.readlink(link) != before
    assert (link / "record.json").exists()
    copy.edit("config.yaml", "weight_decay: 0.02", "weight_decay: 0.01")
    assert "Nothing to be done" in copy.snakemake("--until", "finetune")
    assert os.readlink(link) == before


def test_a_copy_that_followed_the_links_and_a_removed_experiment_leave_no_stale_link(
    finished: Checkout, tmp_path: Path
) -> None:
    shutil.copytree(finished.folder, tmp_path / "copy", copy_function=shutil.copyfile)
    copied = Checkout(tmp_path / "copy")
    current = copied.folder / "results/current/digits/finetune"
    assert not (current / "frozen_few/seed0").is_symlink()
    assert "Nothing to be done" in copied.snakemake()
    assert (current / "frozen_few/seed0").is_symlink()
    study = copied.study()
    del study["experiments"]["frozen_few"], study["report"]["comparisons"]["frozen_few"]
    copied.write_study(study)
    copied.snakemake()
    assert (current / "scratch_few/seed0/record.json").exists()
    assert not list((current / "frozen_few").iterdir())


def test_a_dry_run_leaves_no_trace(checkout: Checkout) -> None:
    assert checkout.planned() == ALL
    assert not (checkout.folder / "results").exists()
    assert not (checkout.folder / "reports").exists()


def test_every_rule_has_a_sentence_and_the_graph_can_be_drawn(checkout: Checkout) -> None:
    listed = checkout.run("snakemake", "--list-rules").stdout
    for rule in (*STAGES, "prepare", "report"):
        assert re.search(rf"^{rule} \(.{{30,}}\.\)$", listed, re.MULTILINE)
    assert checkout.run("snakemake", "pretrain", "--dag").stdout.startswith("digraph")


def test_snakemake_makes_its_own_report_with_categories(copy: Checkout) -> None:
    copy.snakemake("--report", "snakemake.html")
    text = (copy.folder / "snakemake.html").read_text()
    assert all(word in text for word in ("Figures", "Tables", "A figure of the report"))


def test_the_terminal_tells_what_runs_and_how_much_is_left(checkout: Checkout) -> None:
    text = checkout.snakemake("scratch_few")
    assert "start  finetune scratch_few seed 1" in text
    assert "[5 of 5]" in text
    assert " left]" in text
    assert "wildcards:" not in text


def test_a_log_tells_step_loss_rate_and_remaining_time(finished: Checkout) -> None:
    text = files(finished, "log.txt")
    last = next(log.decode() for run, log in text.items() if "finetune/scratch" in run)
    for word in ("step 6/6", "loss ", "examples/s", "s left", "validation_accuracy"):
        assert word in last


def test_a_failed_run_stops_only_what_needs_it_and_the_report_says_why(copy: Checkout) -> None:
    study = copy.study()
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
    assert "0 of 2" in page
    source = source.replace(fault, "pass")
    (copy.folder / "src/assay/objectives/failing.py").write_text(source)
    assert copy.planned() == {"finetune": 2, "evaluate": 2, "report": 1}
    copy.snakemake()
    assert "RuntimeError" not in (copy.folder / "reports/digits/index.html").read_text()


def test_no_stage_but_evaluate_needs_the_test_split(copy: Checkout) -> None:
    shutil.rmtree(copy.folder / "results/finetune")
    [test] = (copy.folder / "results/prepare/digits").glob("*/test.safetensors")
    settings = next(iter(files(copy, "record.json")))
    assert settings
    test.write_bytes(b"")
    copy.snakemake("finetune/frozen_few/seed0", "--rerun-triggers", "mtime", "--allowed-rules",
                   "finetune")  # fmt: skip


def test_data_model_and_objective_drop_in_as_one_file_each(checkout: Checkout) -> None:
    package = checkout.folder / "src" / "assay"
    (package / "datasets" / "noise.py").write_text(OUR_DATASET)
    (package / "models" / "perceptron.py").write_text(OUR_MODEL)
    (package / "objectives" / "copy_image.py").write_text(OUR_OBJECTIVE)
    study = tiny_study() | {"study": "ours"}
    study["prepare"]["dataset"] = {"name": "noise", "contrast": 0.4}
    study["model"] = {"name": "perceptron", "hidden": 8}
    study["pretrain"]["self_supervised"]["objective"] = {"name": "copy_image", "scale": 2}
    study["finetune"]["batch_size"] = 10
    checkout.write_study(study)
    checkout.snakemake()
    assert (checkout.folder / "reports/ours/index.html").exists()
    scores = [m["accuracy"] for run, m in metrics(checkout).items() if "evaluate" in run]
    assert len(scores) == 6


def test_another_study_stands_alone_and_a_value_can_be_laid_over_it(
    checkout: Checkout, tmp_path: Path
) -> None:
    study = checkout.study() | {"study": "other"}
    del study["experiments"]["frozen_few"], study["report"]["comparisons"]["frozen_few"]
    other = Checkout(checkout.folder)
    main = (checkout.folder / "config.yaml").read_text()
    other.write_study(study)
    (checkout.folder / "other.yaml").write_text((checkout.folder / "config.yaml").read_text())
    (checkout.folder / "config.yaml").write_text(main)
    assert checkout.planned("--configfile", "other.yaml")["finetune"] == 4
    assert checkout.planned("--configfile", "other.yaml", "--config", "seeds=[5]")["finetune"] == 2


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


@pytest.mark.parametrize("stage", ("prepare", *STAGES, "report"))
def test_every_stage_runs_by_hand_and_explains_itself(finished: Checkout, stage: str) -> None:
    done = finished.run("python", "-m", f"assay.{stage}", "--help")
    assert done.returncode == 0
    assert "--output" in done.stdout
    assert "settings" in done.stdout


def test_one_core_is_enough(checkout: Checkout) -> None:
    done = checkout.run("snakemake", "--cores", "1", "scratch_few")
    assert done.returncode == 0, done.stderr


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


@pytest.mark.parametrize("change", ("threads=3", "execution={loader_workers: 2}"))
def test_a_training_that_is_wider_than_the_machine_is_refused(
    checkout: Checkout, change: str
) -> None:
    done = checkout.run("snakemake", "--cores", "2", "--config", change)
    assert done.returncode == 1
    assert "a training takes 3 threads" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (checkout.folder / "results/prepare").exists()
