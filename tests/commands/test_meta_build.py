"""Networks that cannot be built are refused before the first job, and others are not."""

import time
from pathlib import Path

import pytest
import torch
import yaml
from support.checkout import PROJECT, tiny_study

from assay.commands import meta_build
from assay.models import cnn
from assay.study import loading
from assay.study.plan import Plan

STUDIES = [PROJECT / "config.yaml", *sorted((PROJECT / "workflow/studies").glob("*.yaml"))]


def refusals(folder: Path, changes: dict) -> dict[str, list[str]]:
    """Return what is refused of a new tiny study with other entries."""
    study = tiny_study() | {"pretrain": {}} | changes
    study["report"]["comparisons"] = {}
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    runs = Plan(loading.read(folder / "study.yaml")).runs
    return meta_build.refusals([run for run in runs if run.stage == "finetune"])


def scratch(**changes: object) -> dict:
    return {"experiments": {"one": {"pretraining": "none", **changes}}}


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_studies_of_the_project_are_not_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PROJECT)
    runs = Plan(loading.read(path, {"device": "cpu"})).runs
    trainings = [run for run in runs if run.stage in ("pretrain", "finetune")]
    assert trainings and meta_build.refusals(trainings) == {}


def test_an_impossible_adaptation_is_refused_with_its_experiments(tmp_path: Path) -> None:
    lora = {"lora": {"rank": 2, "alpha": 4}}
    experiments = {
        "plain": {"pretraining": "none"},
        "low": {"pretraining": "none", **lora},
        "lower": {"pretraining": "none", "weight_decay": 0.1, **lora},
    }
    model = {"name": "resnet", "width": 4, "features": 8}
    [(reason, names)] = refusals(tmp_path, {"model": model, "experiments": experiments}).items()
    assert "lora: the model has no linear layer" in reason
    assert names == ["finetune/low", "finetune/lower"]


def test_a_network_that_fits_into_no_memory_is_checked_without_its_weights(tmp_path: Path) -> None:
    size = {"patch_pixels": 2, "layers": 96, "heads": 96, "width": 12288, "pool": "mean"}
    model = {"name": "vit", **size}  # 174 billion weights, 700 GB
    assert refusals(tmp_path, {"model": model} | scratch()) == {}
    [reason] = refusals(tmp_path, {"model": model | {"heads": 95}} | scratch())
    assert "choose a multiple of 4 and of heads (95)" in reason


def test_a_network_whose_code_needs_numbers_is_built_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = cnn.build

    def needs_numbers(info: dict, **settings: object) -> torch.nn.Module:
        assert torch.linspace(0, 1, 3)[1].item() == 0.5
        return build(info, **settings)

    monkeypatch.setattr(cnn, "build", needs_numbers)
    assert refusals(tmp_path, scratch()) == {}


def test_a_network_that_takes_too_long_or_too_much_memory_is_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: object, **__: object) -> None:
        time.sleep(3600)

    def large(*_: object, **__: object) -> None:
        assert not torch.empty(6 << 30, dtype=torch.uint8).is_meta

    monkeypatch.setattr(meta_build, "LIMIT_SECONDS", 1)
    for build in (slow, large):
        monkeypatch.setattr(cnn, "build", build)
        assert refusals(tmp_path, scratch()) == {}


def test_a_pretraining_of_another_network_is_refused(tmp_path: Path) -> None:
    study = tiny_study()
    start = study["pretrain"]["self_supervised"] | {"data": "other"}
    changes = {
        "prepare": {
            "dataset": {"name": "digits"},
            "additional": {"other": {"dataset": {"name": "mnist"}}},
        },
        "model": {"name": "mlp", "widths": [8], "activation": "gelu"},
        "pretrain": {"self_supervised": start},
    }
    [(reason, names)] = refusals(tmp_path, changes).items()
    assert "pretrain/self_supervised" in reason and "network" in reason
    assert names == ["finetune/finetuned_few", "finetune/frozen_few"]
