"""The check before the first job, in a process of its own and as the workflow uses it."""

import pytest
from support.checkout import Checkout

from assay.commands import cli, preflight

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
            assert images.flatten(1).std(1).min() > 0, "an image is empty"
            found.view(10, -1, 4)  # groups of the study's batch
            torch.autograd.grad(found.sum(), self.layer.weight, create_graph=True)
        return found
"""


def impossible(checkout: Checkout) -> None:
    """Ask for low-rank adaptation of a network without a linear layer."""
    study = checkout.study() | {"model": {"name": "resnet", "width": 4, "features": 8}}
    study["experiments"]["low"] = {"pretraining": "none", "lora": {"rank": 2, "alpha": 4}}
    checkout.write_study(study)


@pytest.mark.slow
def test_the_check_runs_in_another_process_and_returns_reasons(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout.folder)
    impossible(checkout)
    plan = cli.read(checkout.folder / "config.yaml")
    folders = [run.folder for run in plan.runs]
    [(reason, names)] = preflight.run(plan, folders).items()
    assert "lora: the model has no linear layer" in reason
    assert names == ["finetune/low"]
    low = [run.folder for run in plan.runs if run.name == "low" and run.seed == 0]
    assert preflight.run(plan, low) == {}  # a single training reports it just as early


def test_a_refused_study_starts_no_job(checkout: Checkout) -> None:
    impossible(checkout)
    done = checkout.run("snakemake", "--cores", "2")
    text = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 1 and "Traceback" not in text
    assert "config.yaml: these trainings cannot start: finetune/low: lora: the model has no" in text
    assert not list(checkout.folder.glob("results/[!c]*"))


@pytest.mark.slow
def test_a_network_with_unusual_code_is_trained(checkout: Checkout) -> None:
    (checkout.folder / "src/mine.py").write_text(NETWORK)
    two = {"one": {"pretraining": "none"}, "two": {"pretraining": "none", "weight_decay": 0.1}}
    changes = {"model": {"name": "mine:Mine"}, "pretrain": {}, "experiments": two, "seeds": [0]}
    study = checkout.study() | changes
    study["report"]["comparisons"] = {}
    checkout.write_study(study)
    assert "cannot start" not in checkout.snakemake()
    assert len(list(checkout.folder.glob("results/finetune/*/*/record.json"))) == 2
