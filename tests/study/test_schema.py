"""A study is completed with defaults; a run's hash depends on the completed study alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.studies import edited

from assay.study import loading
from assay.study.plan import Plan
from assay.study.schema import Study

SMALLEST = """schema: 2
study: smallest
prepare: { dataset: digits }
model: cnn
finetune: { steps: 20 }
experiments: { scratch: {} }
"""


def read(folder: Path, study: str | dict[str, Any], changes: dict[str, Any] | None = None) -> Study:
    path = folder / "study.yaml"
    path.write_text(study if isinstance(study, str) else yaml.safe_dump(study, sort_keys=False))
    return loading.read(path, {"device": "cpu"} | (changes or {}))


def hashes(study: Study) -> dict[str, str]:
    plan = Plan(study)
    return {run.title: run.digest for run in plan.runs} | {"report": plan.digest}


def test_the_smallest_study_is_completed_with_defaults(tmp_path: Path) -> None:
    study = read(tmp_path, SMALLEST)
    assert study.seeds == [0, 1, 2, 3, 4]
    assert (study.precision, study.compile, study.threads, study.devices) == (
        "32-true",
        "none",
        1,
        1,
    )
    assert study.question is None
    assert study.model == {"name": "cnn", "width": 32, "features": 128}
    scratch = study.experiments["scratch"]
    assert (scratch.pretraining, scratch.model) == ("none", study.model)
    assert (scratch.learning_rate, scratch.batch_size, scratch.warmup_steps) == (1e-3, 128, 0)
    assert scratch.validate_every_steps == 2
    assert scratch.objective["name"] == "classification"
    assert (study.report.metric, study.report.clock, study.report.target) == (
        "accuracy",
        "steps",
        None,
    )
    assert study.report.figures == ["scores", "learning_curves", "wall_time"]
    assert len(Plan(study).runs) == 1 + 2 * 5


def test_writing_out_defaults_changes_no_hash(tmp_path: Path) -> None:
    for found in (SMALLEST, edited({})):
        study = read(tmp_path, found)
        written = read(tmp_path, study.to_dict())
        assert written == study
        assert hashes(written) == hashes(study)


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ({"seeds": 2}, {"seeds": [0, 1]}),
        ({"prepare/dataset": "digits"}, {"prepare/dataset": {"name": "digits"}}),
        ({"model": "cnn"}, {"model": {"name": "cnn", "width": 32, "features": 128}}),
        (
            {"finetune/objective": "classification"},
            {"finetune/objective": {"name": "classification", "horizontal_flip": False}},
        ),
        ({"finetune/weight_decay": 1}, {"finetune/weight_decay": 1.0}),
        ({"finetune/ema_decay": None}, {}),
        ({"experiments/scratch_few": {}}, {"experiments/scratch_few": {"pretraining": "none"}}),
        ({"experiments/frozen_few/steps": 6}, {}),
        ({"execution": {"jobs_per_gpu": 3}}, {"execution": {"loader_workers": 2}}),
    ],
)
def test_two_ways_to_write_a_study_have_equal_hashes(
    short: dict[str, Any], long: dict[str, Any], tmp_path: Path
) -> None:
    assert hashes(read(tmp_path, edited(short))) == hashes(read(tmp_path, edited(long)))


def test_the_order_of_keys_changes_no_hash(tmp_path: Path) -> None:
    def reverse(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: reverse(value[key]) for key in reversed(value)}

    found = edited({})
    assert hashes(read(tmp_path, reverse(found))) == hashes(read(tmp_path, found))


def test_an_experiment_without_a_setting_of_finetune_has_its_default_again(tmp_path: Path) -> None:
    edits = {"finetune/lora": {"rank": 1, "alpha": 1}, "experiments/scratch_few/lora": None}
    study = read(tmp_path, edited(edits | {"experiments/frozen_few/frozen": []}))
    assert study.experiments["scratch_few"].lora is None
    assert study.experiments["frozen_few"].lora.rank == 1


def test_an_experiment_takes_the_model_of_its_pretraining(tmp_path: Path) -> None:
    small = {"name": "cnn", "width": 4, "features": 8}
    study = read(tmp_path, edited({"pretrain/self_supervised/model": small}))
    assert study.experiments["finetuned_few"].model == small
    assert study.experiments["scratch_few"].model == study.model != small


@pytest.mark.parametrize(
    ("steps", "every"), [(10, 1), (400, 40), (7, 1), (11, 11), (13 * 17, 221), (1000, 100), (21, 3)]
)
def test_a_training_validates_at_most_ten_times_by_default(
    steps: int, every: int, tmp_path: Path
) -> None:
    study = read(tmp_path, SMALLEST, {"finetune": {"steps": steps}})
    assert study.experiments["scratch"].validate_every_steps == every


def test_the_default_metric_is_the_first_that_all_experiments_measure(tmp_path: Path) -> None:
    text = SMALLEST.replace("digits", "python_functions, tokenizer: bytes").replace("cnn", "gpt")
    study = read(tmp_path, text, {"experiments": {"scratch": {"objective": "next_token"}}})
    assert study.report.metric == "loss"
    both = {"scratch": {"objective": "next_token"}, "labels": {}}
    assert read(tmp_path, text, {"experiments": both}).report.metric == "loss"


def test_numbers_of_the_command_line_are_read_as_in_a_file(tmp_path: Path) -> None:
    study = read(tmp_path, SMALLEST, {"finetune": {"learning_rate": "1e-4"}, "seeds": "2"})
    assert study.finetune.learning_rate == 1e-4
    assert study.seeds == [0, 1]


def test_a_study_survives_json(tmp_path: Path) -> None:
    study = read(tmp_path, edited({"experiments/scratch_few/lora": {"rank": 2, "alpha": 4}}))
    assert Study.from_dict(json.loads(json.dumps(study.to_dict()))) == study


def test_settings_of_a_training_become_typed_and_leave_out_what_is_not_set(tmp_path: Path) -> None:
    from assay.study.training_settings import LearningRates, TrainingSettings

    plan = Plan(read(tmp_path, edited({})))
    run = next(run for run in plan.runs if run.stage == "finetune")
    assert "ema_decay" not in run.settings
    settings = TrainingSettings.from_dict(run.settings | {"sources": {}})
    assert settings.learning_rate == LearningRates(backbone=0.003, head=0.003)
    assert settings.ema_decay is None
