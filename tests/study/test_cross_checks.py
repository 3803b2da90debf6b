"""Parts of a study that do not fit each other are refused, where the study sets them."""

from pathlib import Path

import pytest
from support.studies import Edits, errors

CASES: dict[str, tuple[Edits, str]] = {
    "unknown pretraining": (
        {"experiments/frozen_few/pretraining": "self_supervized"},
        "did you mean self_supervised?",
    ),
    "too many labels": ({"finetune/labels_per_class": 106}, "at most 105"),
    "batch over the data": ({"finetune/batch_size": 51}, "write at most 50"),
    "uneven validation": ({"finetune/steps": 7}, "write 8"),
    "warm-up over all": ({"finetune/warmup_steps": 6}, "leaves nothing"),
    "batch of one": ({"finetune/batch_size": 1}, "write at least 2"),
    "target beyond": ({"report/target": 90}, "write a number from 0 to 1"),
    "unknown figure": ({"report/figures": ["score"]}, "did you mean scores?"),
    "unknown comparison": ({"report/comparisons/frozen_few": ["scratch"]}, "scratch_few?"),
    "compared with itself": ({"report/comparisons/scratch_few": ["scratch_few"]}, "itself"),
    "other model than pretrained": (
        {"experiments/frozen_few/model": {"name": "cnn", "width": 9, "features": 16}},
        "differs from the model of its pretraining",
    ),
    "unknown metric": ({"report/metric": "acuracy"}, "did you mean accuracy?"),
    "objective without metrics": (
        {
            "finetune/objective": {
                "name": "masked_image",
                "patch_pixels": 2,
                "masked_fraction": 0.5,
                "hidden_features": 8,
            }
        },
        "states no METRICS",
    ),
    "half precision on a CPU": ({"precision": "16-mixed"}, "needs a GPU"),
    "CUDA graphs on a CPU": ({"compile": "reduce-overhead"}, "needs a GPU"),
    "CUDA graphs of several batches": (
        {"device": "gpu", "compile": "reduce-overhead", "finetune/gradient_accumulation_steps": 2},
        "does not work with compile: reduce-overhead",
    ),
    "batch that cannot be shared": ({"devices": 4}, "write 48"),
    "share of a batch that is too small": (
        {"devices": 25, "finetune/batch_size": 25},
        "write at least 50",
    ),
    "compiling on several devices": (
        {"devices": 2, "compile": "default"},
        "works on a single device",
    ),
    "weights cut for one device": ({"finetune/fsdp": True}, "write devices: 2"),
    "weights cut in half precision": (
        {
            "devices": 2,
            "device": "gpu",
            "precision": "16-mixed",
            "pretrain/self_supervised/fsdp": True,
        },
        "works with bf16-mixed or 32-true",
    ),
    "text without a tokenizer": (
        {"prepare/dataset": {"name": "python_topics"}},
        "prepare: python_topics is a text data set: add a tokenizer",
    ),
    "a tokenizer for images": (
        {"prepare/tokenizer": {"name": "bytes"}},
        "prepare.tokenizer: digits is not a text data set",
    ),
    "a tokenizer of data that there is not": (
        {"prepare": {"dataset": {"name": "python_topics"}, "tokenizer": {"from": "broad"}}},
        "prepare.tokenizer.from: there is no data 'broad'",
    ),
    "tokenizers in a circle": (
        {"prepare": {"dataset": {"name": "python_topics"}, "tokenizer": {"from": "default"}}},
        "leads back to itself",
    ),
    "unknown data": ({"experiments/scratch_few/data": "other"}, "there is no data 'other'"),
    "an objective for texts": (
        {"finetune/objective": {"name": "next_token"}},
        "next_token learns from text data, and Optical recognition of handwritten digits is image",
    ),
    "two adaptations": (
        {"experiments/frozen_few/lora": {"rank": 2, "alpha": 4}},
        "frozen and lora exclude each other: keep one",
    ),
    "texts from what cannot write": (
        {"evaluate/generate": {"prompts": ["a"], "tokens": 1, "temperature": 1, "top_k": 1}},
        "evaluate.generate: classification cannot generate text: delete it",
    ),
    "a folder of data that is not there": (
        {"execution/data_folder": "nowhere"},
        "nowhere: there is no such folder",
    ),
    "a comparison of other data": (
        {
            "prepare/additional": {"more": {"dataset": "mnist"}},
            "experiments/scratch_few/data": "more",
        },
        "finetuned_few and scratch_few are tested on different data",
    ),
    "a tokenizer of data that has none": (
        {
            "prepare": {
                "dataset": {"name": "python_functions", "max_length": 8},
                "tokenizer": {"from": "pictures"},
                "additional": {"pictures": {"dataset": {"name": "digits"}}},
            }
        },
        "pictures has no tokenizer",
    ),
    "a model of images for texts": (
        {
            "prepare": {
                "dataset": {"name": "python_functions", "max_length": 8},
                "tokenizer": {"name": "bytes"},
            }
        },
        "model.name: cnn takes image data, and Functions of Python's standard library is text",
    ),
    "labels for an objective that reads none": (
        {"finetune/objective": {"name": "next_token"}},
        "5: next_token reads no labels",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_parts_that_do_not_fit_are_refused_with_file_key_and_remedy(
    case: str, tmp_path: Path
) -> None:
    edits, expected = CASES[case]
    text = errors(tmp_path / "broken.yaml", edits)
    assert expected in text
    assert str(tmp_path / "broken.yaml") in text


def test_compiling_without_a_compiler_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    text = errors(tmp_path / "broken.yaml", {"compile": "default"})
    assert "compile: default needs the C++ compiler no-such-compiler" in text


def test_an_error_that_experiments_inherit_is_reported_once_where_it_is_written(
    tmp_path: Path,
) -> None:
    edits = {"finetune/objective": "next_token", "finetune/labels_per_class": "all"}
    text = errors(tmp_path / "broken.yaml", edits)
    assert text.count("learns from text data") == 1
    assert "finetune.objective.name: next_token learns from text data" in text
