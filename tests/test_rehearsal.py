"""Trainings that could not begin are told of before the first of them does."""

from pathlib import Path

import pytest
import yaml
from conftest import PROJECT, Checkout, tiny_study
from test_faults import BROKEN_MODEL

from assay import rehearse, study
from assay.plan import Plan

STUDIES = [PROJECT / "config.yaml", *sorted((PROJECT / "workflow/studies").glob("*.yaml"))]
NUMBERS = '''
"""A network that looks at its numbers."""

import torch
from torch import nn


class Looking(nn.Module):
    features = 4

    def __init__(self):
        super().__init__()
        self.scale = nn.Linear(64, 4)

    def forward(self, images):
        found = self.scale(images.flatten(1))
        return found if found.mean().item() > 0 else -found


def build(facts):
    """Build it."""
    return Looking()
'''


def told(folder: Path, changes: dict) -> dict[str, list[str]]:
    """What a rehearsal says of a new tiny study with other entries."""
    found = tiny_study() | {"pretrain": {}} | changes
    found["report"]["comparisons"] = {}
    (folder / "study.yaml").write_text(yaml.safe_dump(found))
    runs = Plan(study.read(folder / "study.yaml")).runs
    return rehearse.obstacles([run for run in runs if run.stage == "finetune"])


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_studies_that_are_here_can_begin(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(PROJECT)
    runs = Plan(study.read(path) | {"device": "cpu"}).runs
    trainings = [run for run in runs if run.stage in ("pretrain", "finetune")]
    assert trainings and rehearse.obstacles(trainings) == {}


def test_what_cannot_be_adapted_so_is_told_with_the_experiments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = {"lora": {"rank": 2, "alpha": 4}}
    experiments = {
        "plain": {"pretraining": "none"},
        "low": {"pretraining": "none", **lora},
        "lower": {"pretraining": "none", "weight_decay": 0.1, **lora},
    }
    monkeypatch.setattr(rehearse.adaptation, "_is_matrix", lambda module: False)
    assert told(tmp_path, {"experiments": experiments}) == {
        "lora: the model has no linear layer that it could add to": [
            "finetune/low", "finetune/lower",
        ]
    }  # fmt: skip


def test_a_network_that_fails_is_told_before_the_first_job(checkout: Checkout) -> None:
    (checkout.folder / "src/assay/models/broken.py").write_text(
        BROKEN_MODEL.replace(" if images.any() else 0", "")
    )
    found = checkout.study()
    found["experiments"]["broken"] = {"pretraining": "none", "model": {"name": "broken"}}
    checkout.write_study(found)
    done = checkout.run("snakemake", "--cores", "2")
    words = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 1 and "Traceback" not in words
    assert "config.yaml: these trainings cannot begin: finetune/broken: AttributeError" in words
    assert "raised in src/assay/models/broken.py, line 11 (forward)" in words
    assert not list(checkout.folder.glob("results/[!c]*"))


def test_a_network_that_looks_at_its_numbers_is_given_some(checkout: Checkout) -> None:
    (checkout.folder / "src/assay/models/looking.py").write_text(NUMBERS)
    found = checkout.study() | {"seeds": [0], "model": {"name": "looking"}}
    found["pretrain"] = {}
    found["experiments"] = {
        "one": {"pretraining": "none"}, "two": {"pretraining": "none", "weight_decay": 0.1},
    }  # fmt: skip
    found["report"]["comparisons"] = {}
    checkout.write_study(found)
    checkout.snakemake()
    assert len(list(checkout.folder.glob("results/finetune/*/*/record.json"))) == 2


def test_a_network_whose_weights_fit_into_no_memory_is_tried_without_them(tmp_path: Path) -> None:
    size = {"patch_pixels": 2, "layers": 96, "heads": 96, "width": 12288, "pool": "mean"}
    model = {"name": "vit", **size}  # 174 billion weights, 700 GB
    assert told(tmp_path, {"model": model, "experiments": {"huge": {"pretraining": "none"}}}) == {}
    model["heads"] = 95
    [why] = told(tmp_path, {"model": model, "experiments": {"huge": {"pretraining": "none"}}})
    assert "a multiple of 4 and of heads (95) is needed" in why


def test_a_pretraining_that_the_network_cannot_start_from_is_told(tmp_path: Path) -> None:
    found = tiny_study()
    start = found["pretrain"]["self_supervised"] | {"data": "other"}
    further = {"other": {"dataset": {"name": "mnist"}}}
    changes = {
        "prepare": {"dataset": {"name": "digits"}, "further": further},
        "model": {"name": "mlp", "widths": [8], "activation": "gelu"},
        "pretrain": {"self_supervised": start},
    }  # fmt: skip
    told_of = told(tmp_path, changes)
    [(why, names)] = told_of.items()
    assert "pretrain/self_supervised holds another network" in why
    assert names == ["finetune/finetuned_few", "finetune/frozen_few"]
