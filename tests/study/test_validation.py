"""Keys and values that do not fit the format of a study are refused."""

import datetime
from pathlib import Path

import pytest
from support.studies import DELETE, Edits, errors

CASES: dict[str, tuple[Edits, str]] = {
    "misspelt key": ({"seedz": [1]}, "seedz: there is no such key here; did you mean seeds?"),
    "misspelt section": ({"evaluat": {}}, "evaluat: there is no such key here; did you mean"),
    "misspelt key of data": ({"prepare/datasets": {}}, "prepare.datasets: there is no such key"),
    "misspelt key of a pretraining": (
        {"pretrain/self_supervised/step": 4},
        "self_supervised.step: there is no such key",
    ),
    "misspelt key of an experiment": (
        {"experiments/scratch_few/lables_per_class": 1},
        "did you mean labels_per_class?",
    ),
    "misspelt key of execution": ({"execution/fork_servr": True}, "did you mean fork_server?"),
    "misspelt key of evaluation": ({"evaluate/batchsize": 1}, "did you mean batch_size?"),
    "misspelt key of the report": ({"report/metrics": "x"}, "did you mean metric?"),
    "misspelt learning rate": (
        {"finetune/learning_rate": {"backbone": 1, "heads": 1}},
        "finetune.learning_rate.heads: there is no such key here; did you mean head?",
    ),
    "key of the next section": ({"steps": 4}, "steps: there is no such key here"),
    "setting of a job": ({"execution/intervals": 1}, "intervals: there is no such key here"),
    "missing key": ({"finetune/steps": DELETE}, "finetune.steps: is missing: add it, an integer"),
    "missing section": ({"experiments": DELETE}, "experiments: is missing: add it"),
    "missing data set": ({"prepare/dataset": DELETE}, "prepare.dataset: is missing"),
    "missing objective": (
        {"pretrain/self_supervised/objective": DELETE},
        "self_supervised.objective: is missing",
    ),
    "missing learning rate": (
        {"finetune/learning_rate": {"backbone": 1}},
        "learning_rate.head: is missing: add it, a",
    ),
    "missing rank": ({"experiments/scratch_few/lora": {"alpha": 1}}, "lora.rank: is missing"),
    "missing currency": ({"report/cost": {"per_hour": 1}}, "report.cost.currency: is missing"),
    "missing prompts": ({"evaluate/generate": {}}, "evaluate.generate.prompts: is missing"),
    "text for a number": ({"finetune/weight_decay": "0.1 "}, "write 0.1 without quotes"),
    "words for a number": ({"finetune/weight_decay": "much"}, "'much' is not a number"),
    "list for a number": ({"finetune/weight_decay": [1]}, "[1] is not a number"),
    "nothing for a number": ({"finetune/weight_decay": None}, "null is not a number: add a value"),
    "text for an integer": ({"threads": "2"}, "'2' is not an integer: write 2 without quotes"),
    "nothing for an integer": ({"threads": None}, "null is not an integer: add a value"),
    "huge integer": ({"finetune/steps": 10**30}, "it must be at most 1000000000"),
    "huge number": ({"finetune/weight_decay": 1e300}, "it must be at most 1000"),
    "huge integer for a number": ({"finetune/weight_decay": 10**400}, "at most 1000"),
    "truth for a rate": ({"finetune/learning_rate": True}, "true is not a number or a mapping"),
    "text for a rate": ({"finetune/learning_rate": "fast"}, "'fast' is not a number or a mapping"),
    "text for truth": ({"finetune/fsdp": "yes"}, "'yes' is not true or false"),
    "number for truth": ({"execution/fork_server": 1}, "1 is not true or false"),
    "number for text": ({"question": 5}, "5 is not text: put it in quotes"),
    "truth for a name": ({"study": True}, "true is not text: put it in quotes"),
    "empty question": ({"question": ""}, "question: is empty"),
    "long question": ({"question": "?" * 301}, "is too long: at most 300"),
    "text for a section": ({"finetune": "fast"}, "finetune: 'fast' is not a mapping (key: value)"),
    "list for a section": ({"experiments": ["scratch"]}, "is not a mapping (key: value)"),
    "text for a list": ({"finetune/frozen": "backbone"}, "write [backbone]"),
    "text for seeds": ({"seeds": "all"}, "seeds: 'all' is not a list or an integer"),
    "no seeds": ({"seeds": 0}, "seeds: 0 is out of range: it must be at least 1"),
    "too many seeds": ({"seeds": 10**7}, "it must be at most 10000"),
    "text for a seed": ({"seeds": [0, "one"]}, "seeds.1: 'one' is not an integer"),
    "huge seed": ({"seeds": [2**32]}, "seeds.0: 4294967296 is out of range"),
    "half a step": ({"finetune/validate_every_steps": 0.5}, "0.5 is not an integer"),
    "no decay": ({"finetune/ema_decay": 1}, "ema_decay: 1 is out of range: it must be less than 1"),
    "free computing": (
        {"report/cost": {"per_hour": 0, "currency": "EUR"}},
        "it must be more than 0",
    ),
    "prompt that is no text": (
        {"evaluate/generate": {"prompts": [1]}},
        "prompts.0: 1 is not text: put it in quotes",
    ),
    "no baseline": ({"report/comparisons/frozen_few": []}, "frozen_few: is empty: give at least"),
    "text for a baseline": (
        {"report/comparisons/frozen_few": "scratch_few"},
        "write [scratch_few]",
    ),
    "unknown clock": ({"report/clock": "step"}, "did you mean steps?"),
    "date for a number": ({"threads": datetime.date(2026, 1, 1)}, "'2026-01-01' is not an integer"),
    "not a number": ({"finetune/weight_decay": float("nan")}, "not a finite number"),
    "infinite": ({"pretrain/self_supervised/learning_rate": float("inf")}, "finite"),
    "negative rate": ({"pretrain/self_supervised/learning_rate": -1}, "more than 0"),
    "zero rate": ({"finetune/learning_rate/head": 0}, "more than 0"),
    "zero batch": ({"finetune/batch_size": 0}, "at least 1"),
    "fraction for a count": ({"finetune/steps": 2.5}, "2.5 is not an integer"),
    "truth for a number": ({"threads": True}, "true is not an integer"),
    "unsafe name": ({"experiments/a b": {"pretraining": "none"}}, "not a safe name"),
    "path as a name": ({"experiments/..": {"pretraining": "none"}}, "not a safe name"),
    "number as a name": ({"experiments": {7: {"pretraining": "none"}}}, "put it in quotes"),
    "stage as a name": ({"experiments/finetune": {"pretraining": "none"}}, "another name"),
    "names alike": ({"experiments/Scratch_Few": {"pretraining": "none"}}, "upper and lower"),
    "study outside": ({"study": "../elsewhere"}, "not a safe name"),
    "words for labels": (
        {"finetune/labels_per_class": "everything"},
        "'everything' is not an integer or all",
    ),
    "negative labels": ({"finetune/labels_per_class": -1}, "at least 1"),
    "study with a newline": ({"study": "digits\n"}, "not a safe name"),
    "no seed": ({"seeds": []}, "is empty"),
    "a seed twice": ({"seeds": [1, 1]}, "twice"),
    "negative seed": ({"seeds": [-1]}, "at least 0"),
    "unknown device": ({"device": "gpus"}, "did you mean gpu?"),
    "unknown precision": ({"precision": 32}, "did you mean 32-true?"),
    "unknown part": ({"finetune/frozen": ["backbon"]}, "did you mean backbone?"),
    "no device": ({"devices": 0}, "at least 1"),
    "section without content": ({"experiments": None}, "null is not a mapping (key: value)"),
    "empty experiment": ({"experiments/scratch_few": None}, "scratch_few: null is not a mapping"),
    "other data with the name of the first": (
        {"prepare/additional": {"default": {"dataset": {"name": "digits"}}}},
        "prepare.additional.default: 'default' has another meaning here",
    ),
    "unsafe name of other data": (
        {"prepare/additional": {"a b": {"dataset": {"name": "digits"}}}},
        "not a safe name",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_value_that_does_not_fit_is_refused_with_file_key_and_remedy(
    case: str, tmp_path: Path
) -> None:
    edits, expected = CASES[case]
    text = errors(tmp_path / "broken.yaml", edits)
    assert expected in text
    assert str(tmp_path / "broken.yaml") in text
