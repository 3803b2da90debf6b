"""What the workflow promises of a training holds for every objective and way of adaptation."""

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


def test_every_objective_that_needs_no_labels_is_among_those_tested_here() -> None:
    labelled = {"classification", "lightning"}
    assert PRETRAININGS.keys() == set(plugins.names("objective")) - labelled


@pytest.mark.parametrize("name", sorted(PRETRAININGS))
def test_a_pretraining_that_is_killed_ends_in_the_same_bytes(name: str, tmp_path: Path) -> None:
    data = prepare(tmp_path / "data", PRETRAININGS[name][0])
    assert attempt(pretrained(name, data, tmp_path / "calm")) == 0
    hurried = pretrained(name, data, tmp_path / "hurried")
    for number in (4, 3):
        assert attempt(hurried, killed_in_step(number)) == -9
    assert attempt(hurried) == 0
    assert content(tmp_path / "calm") == content(tmp_path / "hurried")
    record = records.read(tmp_path / "hurried")
    assert record["attempts"] == 3
    assert record["flops_per_sample"] > 0
    seconds = record["seconds"]
    assert abs(sum(v for k, v in seconds.items() if k != "wall") / seconds["wall"] - 1) < 0.01


@pytest.mark.parametrize("kind", sorted(ADAPTATIONS))
@pytest.mark.parametrize("name", ("masked_autoencoder", "next_token"))
def test_each_way_of_adaptation_ends_in_the_same_bytes_after_a_kill(
    kind: str, name: str, tmp_path: Path
) -> None:
    info, model, _ = PRETRAININGS[name]
    labelled = IMAGES if info is IMAGES else LABELLED
    start = prepare(tmp_path / "start", info)
    data = prepare(tmp_path / "data", labelled)
    assert attempt(pretrained(name, start, tmp_path / "weights")) == 0
    runs = [tmp_path / "calm", tmp_path / "hurried"]
    calm, hurried = (
        tuned(data, run, tmp_path / "weights", model, ADAPTATIONS[kind]) for run in runs
    )
    assert attempt(calm) == 0
    assert attempt(hurried, killed_in_step(6)) == -9
    assert attempt(hurried) == 0
    assert content(runs[0]) == content(runs[1])


def test_nothing_left_that_learns_is_one_clear_error(tmp_path: Path) -> None:
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
    assert "nothing of the network is left that learns" in reason and "freeze less" in reason


def test_the_last_block_alone_learns_where_a_study_says_so(tmp_path: Path) -> None:
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
