"""What cannot be trained is told before the first training begins, and what can is not held up."""

from pathlib import Path

import pytest
import yaml
from support.checkout import PROJECT, Checkout, tiny_study
from workflow.test_failures import BROKEN_MODEL

from assay.commands import preflight
from assay.study import loading
from assay.study.plan import Plan

STUDIES = [PROJECT / "config.yaml", *sorted((PROJECT / "workflow/studies").glob("*.yaml"))]
NOTHING = {"refused": {}, "doubtful": {}}
NETWORK = """
import functools

import torch
from torch import nn

CENTRE = torch.tensor(0.1)


@functools.cache
def grid():
    return torch.arange(4.0)


class Mine(nn.Module):
    made = 0

    def __init__(self, info):
        super().__init__()
        assert info.input == "image" and info.title
        self.layer = nn.Linear(64, 4)

    def forward(self, images):
        found = self.layer(images.flatten(1) - CENTRE) + grid()
        if self.training:
            found = found if found.mean().item() > 0 else -found
            assert images.flatten(1).std(1).min() > 0, "a picture is empty"
            found.view(10, -1, 4)  # groups of the study's batch
            torch.autograd.grad(found.sum(), self.layer.weight, create_graph=True)
        return found
"""


def told(folder: Path, changes: dict) -> dict[str, dict[str, list[str]]]:
    """What a rehearsal says of a new tiny study with other entries."""
    found = tiny_study() | {"pretrain": {}} | changes
    found["report"]["comparisons"] = {}
    (folder / "study.yaml").write_text(yaml.safe_dump(found))
    runs = Plan(loading.read(folder / "study.yaml")).runs
    return preflight.verdicts([run for run in runs if run.stage == "finetune"])


def scratch(**changes: object) -> dict:
    return {"experiments": {"one": {"pretraining": "none", **changes}}}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_studies_that_are_here_can_begin(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    runs = Plan(loading.read(path) | {"device": "cpu"}).runs
    trainings = [run for run in runs if run.stage in ("pretrain", "finetune")]
    assert trainings and preflight.verdicts(trainings) == NOTHING


def test_what_cannot_be_adapted_so_is_refused_with_the_experiments(tmp_path: Path) -> None:
    lora = {"lora": {"rank": 2, "alpha": 4}}
    experiments = {
        "plain": {"pretraining": "none"},
        "low": {"pretraining": "none", **lora},
        "lower": {"pretraining": "none", "weight_decay": 0.1, **lora},
    }
    changes = {"model": {"name": "resnet", "width": 4, "features": 8}, "experiments": experiments}
    assert told(tmp_path, changes)["refused"] == {
        "lora: the model has no linear layer that it could add to": [
            "finetune/low", "finetune/lower",
        ]
    }  # fmt: skip


def test_a_refused_study_begins_no_job(checkout: Checkout) -> None:
    found = checkout.study() | {"model": {"name": "resnet", "width": 4, "features": 8}}
    found["experiments"]["low"] = {"pretraining": "none", "lora": {"rank": 2, "alpha": 4}}
    checkout.write_study(found)
    done = checkout.run("snakemake", "--cores", "2")
    words = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 1 and "Traceback" not in words
    assert (
        "config.yaml: these trainings cannot begin: finetune/low: lora: the model has no" in words
    )
    assert not list(checkout.folder.glob("results/[!c]*"))


def test_of_a_step_that_fails_there_is_a_warning_before_the_first_job(checkout: Checkout) -> None:
    (checkout.folder / "src/assay/models/broken.py").write_text(BROKEN_MODEL)
    found = checkout.study()
    found["experiments"]["broken"] = {"pretraining": "none", "model": {"name": "broken"}}
    checkout.write_study(found)
    done = checkout.run("snakemake", "--cores", "2")
    before, started, after = (done.stdout + done.stderr).partition("start  prepare")
    assert started and "A step of these trainings failed when it was tried" in before
    assert "finetune/broken: AttributeError: 'Broken' object has no attribute 'missing'" in before
    assert "Traceback" not in before + after
    assert list(checkout.folder.glob("results/finetune/scratch_few/*/record.json"))


def test_a_network_that_can_be_trained_is_held_up_by_nothing(checkout: Checkout) -> None:
    (checkout.folder / "src/mine.py").write_text(NETWORK)
    two = {"one": {"pretraining": "none"}, "two": {"pretraining": "none", "weight_decay": 0.1}}
    changes = {"model": {"name": "mine:Mine"}, "pretrain": {}, "experiments": two, "seeds": [0]}
    found = checkout.study() | changes
    found["report"]["comparisons"] = {}
    checkout.write_study(found)
    shown = checkout.snakemake()
    assert "failed when it was tried" not in shown
    assert len(list(checkout.folder.glob("results/finetune/*/*/record.json"))) == 2


def test_a_network_whose_weights_fit_into_no_memory_is_tried_without_them(tmp_path: Path) -> None:
    size = {"patch_pixels": 2, "layers": 96, "heads": 96, "width": 12288, "pool": "mean"}
    model = {"name": "vit", **size}  # 174 billion weights, 700 GB
    assert told(tmp_path, {"model": model} | scratch()) == NOTHING
    [why] = told(tmp_path, {"model": model | {"heads": 95}} | scratch())["refused"]
    assert "a multiple of 4 and of heads (95) is needed" in why


def test_what_takes_too_long_or_too_much_memory_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    import torch

    from assay.models import cnn

    def slow(*_: object, **__: object) -> None:
        time.sleep(60)

    def large(*_: object, **__: object) -> None:
        assert not torch.empty(6 << 30, dtype=torch.uint8).is_meta

    monkeypatch.setattr(preflight, "LIMIT_SECONDS", 1)
    for build in (slow, large):
        monkeypatch.setattr(cnn, "build", build)
        assert told(tmp_path, scratch()) == NOTHING


def test_a_pretraining_that_the_network_cannot_start_from_is_told(tmp_path: Path) -> None:
    found = tiny_study()
    start = found["pretrain"]["self_supervised"] | {"data": "other"}
    further = {"other": {"dataset": {"name": "mnist"}}}
    changes = {
        "prepare": {"dataset": {"name": "digits"}, "additional": further},
        "model": {"name": "mlp", "widths": [8], "activation": "gelu"},
        "pretrain": {"self_supervised": start},
    }  # fmt: skip
    [(why, names)] = told(tmp_path, changes)["refused"].items()
    assert "pretrain/self_supervised holds another network" in why
    assert names == ["finetune/finetuned_few", "finetune/frozen_few"]
