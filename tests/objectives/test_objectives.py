"""Every objective and way of adaptation resumes to the same bytes after a kill."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from support.objectives import (
    ADAPTATIONS,
    COMMON,
    GPT,
    IMAGES,
    LABELLED,
    PRETRAININGS,
    STREAM,
    content,
    killed_in_step,
    prepare,
    pretrained,
    tuned,
)
from support.trainings import EACH_STEP, attempt

from assay import finetune, plugins
from assay.runs import artifacts, records
from assay.runs.errors import ExitCode


def slow_unless(name: str, fast: str) -> object:
    """A parameter of a test, marked slow unless it is the fast one."""
    return pytest.param(name, marks=() if name == fast else pytest.mark.slow)


def test_every_objective_without_labels_is_tested_here() -> None:
    labelled = {"classification", "lightning"}
    assert PRETRAININGS.keys() == set(plugins.names("objective")) - labelled


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PRETRAININGS))
def test_a_killed_pretraining_ends_in_the_same_bytes(name: str, tmp_path: Path) -> None:
    data = prepare(tmp_path / "data", PRETRAININGS[name][0])
    assert attempt(pretrained(name, data, tmp_path / "undisturbed")) == 0
    killed = pretrained(name, data, tmp_path / "killed")
    for step in (4, 3):
        assert attempt(killed, killed_in_step(step)) == -9
    assert attempt(killed) == 0
    assert content(tmp_path / "undisturbed") == content(tmp_path / "killed")
    record = records.read(tmp_path / "killed")
    assert record["attempts"] == 3
    assert record["flops_per_sample"] > 0
    seconds = record["seconds"]
    assert abs(sum(v for k, v in seconds.items() if k != "wall") / seconds["wall"] - 1) < 0.01


@pytest.mark.parametrize("adaptation", [slow_unless(name, "low rank") for name in ADAPTATIONS])
@pytest.mark.parametrize(
    "name", [slow_unless(name, "next_token") for name in ("masked_autoencoder", "next_token")]
)
def test_a_killed_adaptation_ends_in_the_same_bytes(
    adaptation: str, name: str, tmp_path: Path
) -> None:
    info, model, _ = PRETRAININGS[name]
    labelled = IMAGES if info is IMAGES else LABELLED
    start = prepare(tmp_path / "start", info)
    data = prepare(tmp_path / "data", labelled)
    assert attempt(pretrained(name, start, tmp_path / "weights")) == 0
    runs = [tmp_path / "undisturbed", tmp_path / "killed"]
    undisturbed, killed = (
        tuned(data, run, tmp_path / "weights", model, ADAPTATIONS[adaptation]) for run in runs
    )
    assert attempt(undisturbed) == 0
    assert attempt(killed, killed_in_step(6)) == -9
    assert attempt(killed) == 0
    assert content(runs[0]) == content(runs[1])


def test_freezing_every_parameter_is_an_error(tmp_path: Path) -> None:
    data = prepare(tmp_path / "data", STREAM)
    changes = {
        "objective": {"name": "next_token"}, "labels_per_class": "all", "frozen": ["backbone"],
    }  # fmt: skip
    output = tmp_path / "output"

    def train() -> None:
        settings = {**COMMON, "model": GPT, "learning_rate": {"backbone": 0.01, "head": 0.01}}
        finetune.finetune(settings | changes, 0, data, output, execution=EACH_STEP)

    assert attempt(train) == ExitCode.CODE
    reason = json.loads((output / records.FAILURE).read_text())["reason"]
    assert "no parameter of the network is left that learns" in reason and "freeze less" in reason


def test_only_the_last_unfrozen_block_learns(tmp_path: Path) -> None:
    start, data = prepare(tmp_path / "start", STREAM), prepare(tmp_path / "data", LABELLED)
    assert attempt(pretrained("next_token", start, tmp_path / "weights")) == 0
    run = tuned(data, tmp_path / "tuned", tmp_path / "weights", GPT, {"unfrozen_blocks": 1})
    assert attempt(run) == 0
    before, after = (
        load_file(tmp_path / part / artifacts.WEIGHTS) for part in ("weights", "tuned")
    )
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed
    assert all(name.startswith(("backbone.blocks.1.", "backbone.norm.")) for name in changed)
