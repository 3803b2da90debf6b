"""Unknown plug-ins and settings that do not fit their signature are refused."""

from pathlib import Path

import pytest
from support.studies import DELETE, Edits, errors

CASES: dict[str, tuple[Edits, str]] = {
    "missing name of a model": ({"model/name": DELETE}, "model.name: is missing: add the name of"),
    "number for a plug-in": ({"model": 5}, "model: 5 is not a mapping"),
    "list for a plug-in": ({"model": ["cnn"]}, "model: ['cnn'] is not a mapping"),
    "number for the name of a plug-in": ({"model/name": 5}, "5 is not the name of a model"),
    "a setting of another plug-in": (
        {"prepare/dataset": {"name": "digits", "pixels": 8}},
        "dataset digits has no such setting",
    ),
    "a tokenizer with a source and a name": (
        {"prepare": {"dataset": "python_topics", "tokenizer": {"from": "default", "name": "bpe"}}},
        "prepare.tokenizer.name: has no meaning beside `from`: delete it",
    ),
    "a source that is no name": (
        {"prepare": {"dataset": "python_topics", "tokenizer": {"from": 1}}},
        "prepare.tokenizer.from: 1 is not the name of data",
    ),
    "negative size": ({"model/width": -3}, "it must be more than 0"),
    "unknown data set": ({"prepare/dataset": "digit"}, "did you mean digits?"),
    "unknown model": ({"model/name": "cn"}, "did you mean cnn?"),
    "unknown objective": ({"finetune/objective/name": "clasification"}, "mean classification?"),
    "unknown setting of a model": (
        {"model/depth": 3},
        "model cnn has no such setting; did you mean width?",
    ),
    "missing setting of a data set": (
        {"prepare/dataset": "image_folder"},
        "dataset.folder: is missing: add it, the path of",
    ),
    "wrong type for a model": ({"model/width": "wide"}, "'wide' is not an integer"),
    "setting out of range": ({"finetune/objective/label_smoothing": 1}, "it must be less than 1"),
    "an unknown tokenizer": (
        {"prepare": {"dataset": {"name": "python_topics"}, "tokenizer": {"name": "byte"}}},
        "did you mean bytes?",
    ),
    "a value that is no choice": (
        {
            "model": {
                "name": "vit",
                "patch_pixels": 2,
                "layers": 1,
                "heads": 1,
                "width": 4,
                "pool": "means",
            }
        },
        "'means' is not one of mean, token; did you mean mean?",
    ),
    "a module that is not there": (
        {"model": {"name": "mine.net:Net"}},
        "there is no module mine.net: put its file below",
    ),
    "no module at all": (
        {"model": {"name": "a b:c"}},
        "'a b:c' is not of the form package.module:name",
    ),
    "files that are not there": (
        {
            "prepare/dataset": {
                "name": "image_folder",
                "folder": "nowhere",
                "pixels": 8,
                "colour": True,
                "crop": "none",
                "unreadable": "stop",
            }
        },
        "prepare.dataset.folder: 'nowhere': there is no such file or folder",
    ),
    "a function without an argument of that name": (
        {"model": {"name": "assay.models.cnn:CNN", "channels": 1, "width": 2, "depth": 3}},
        "has no such setting; did you mean width?",
    ),
    "a network within a model that is one": ({"model/name": "cnn:small"}, "write cnn"),
    "a library without a network": ({"model": {"name": "timm"}}, "write timm: and the name"),
    "a part of a data set": ({"prepare/dataset": "digits:three"}, "is a file in"),
    "a part of an objective": ({"finetune/objective/name": "classification:mine"}, "is a file in"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_plugin_that_cannot_run_is_refused_with_file_key_and_remedy(
    case: str, tmp_path: Path
) -> None:
    edits, expected = CASES[case]
    text = errors(tmp_path / "broken.yaml", edits)
    assert expected in text
    assert str(tmp_path / "broken.yaml") in text
