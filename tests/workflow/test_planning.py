"""Which runs an edit of the study makes due, without starting Snakemake."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.checkout import Checkout, planned_study, tiny_study

from assay.workflow import planning
from assay.workflow.command_line import CommandLine

TRAINED = {"finetune": 2, "evaluate": 2}  # an experiment with two seeds


def set_(*path: str, to: Any) -> Callable[[dict], None]:
    """Return an edit of one value."""

    def edit(study: dict) -> None:
        *parents, last = path
        for key in parents:
            study = study[key]
        study[last] = to

    return edit


EDITS = {
    "nothing": (lambda study: None, {}),
    "the order of keys": (lambda study: study.update(reversed(list(study.items()))), {}),
    "execution": (set_("execution", "progress_seconds", to=3), {}),
    "the report": (set_("report", "target", to=0.2), {}),
    "a training of one experiment": (
        set_("experiments", "frozen_few", "weight_decay", to=0.3),
        TRAINED,
    ),
    "a training of all experiments": (
        set_("finetune", "weight_decay", to=0.3),
        {"finetune": 6, "evaluate": 6},
    ),
    "the evaluation": (set_("evaluate", "batch_size", to=32), {"evaluate": 6}),
    "the pretraining": (
        set_("pretrain", "self_supervised", "weight_decay", to=0.3),
        {"pretrain": 2, "finetune": 4, "evaluate": 4},
    ),
    "the model": (
        set_("model", "width", to=4),
        {"pretrain": 2, "finetune": 6, "evaluate": 6},
    ),
    "a new seed": (
        set_("seeds", to=[0, 1, 2]),
        {"pretrain": 1, "finetune": 3, "evaluate": 3},
    ),
    "a seed less": (set_("seeds", to=[0]), {}),
    "a new experiment": (
        set_("experiments", "more", to={"pretraining": "none", "steps": 4}),
        TRAINED,
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_makes_due_what_it_affects(
    finished: Checkout, edit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change, jobs = EDITS[edit]
    study = finished.study()
    change(study)
    monkeypatch.chdir(finished.folder)
    plan = planned_study(tmp_path, study)
    assert planning.counts(plan, planning.due(plan, CommandLine())) == jobs


def test_a_parent_that_is_gone_makes_due_what_depends_on_it(
    copy: Checkout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(copy.folder)
    plan = planned_study(tmp_path, copy.study())
    pretraining = next(run for run in plan.runs if run.stage == "pretrain")
    Path(pretraining.folder, "weights.safetensors").unlink()
    due = planning.due(plan, CommandLine())
    assert planning.counts(plan, due) == {"pretrain": 1, **TRAINED}
    assert planning.due(plan, CommandLine(targets=("scratch_few",))) == {}


def test_values_and_later_files_change_those_of_the_first_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(yaml.safe_dump(tiny_study()))
    Path("more.yaml").write_text(yaml.safe_dump({"seeds": [5, 6], "finetune": {"steps": 8}}))
    plan = planning.read(["study.yaml", "more.yaml"], {"seeds": [7]})
    assert {run.seed for run in plan.runs} == {None, 7}
    assert {run.settings["steps"] for run in plan.runs if run.stage == "finetune"} == {8}


def test_a_broken_study_is_reported_with_its_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(yaml.safe_dump(tiny_study()).replace("steps: 4", "steps: many"))
    with pytest.raises(SystemExit, match=r"study\.yaml, line \d+: .*steps.*many"):
        planning.read(["study.yaml"], {})


def test_the_study_of_this_folder_comes_before_that_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert planning.study_files([], "/project") != ["config.yaml"]
    Path("config.yaml").touch()
    assert planning.study_files([], "/project") == ["config.yaml"]
    assert planning.study_files([str(tmp_path / "mine.yaml")], "/project") == ["mine.yaml"]
