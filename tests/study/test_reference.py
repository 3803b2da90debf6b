"""The reference of keys and the JSON schema of studies are generated from the code."""

import json
from typing import Any

import jsonschema
import pytest
import yaml
from support.checkout import PROJECT
from support.studies import DELETE, edited

from assay import plugins
from assay.study import plugin_settings, reference

SCHEMA = json.loads((PROJECT / reference.JSON_SCHEMA).read_text(encoding="utf-8"))


def test_the_committed_reference_and_json_schema_are_current() -> None:
    advice = "run `make reference` and commit the result"
    assert (PROJECT / reference.MARKDOWN).read_text(encoding="utf-8") == reference.markdown(), (
        advice
    )
    assert reference.json_schema() == SCHEMA, advice


@pytest.mark.parametrize("kind", plugins.KINDS)
def test_every_setting_has_a_meaning_in_the_reference(kind: str) -> None:
    text = reference.markdown()
    assert "|  |\n" not in text
    for name in plugins.names(kind):
        _, _, section = text.partition(f"### {kind} {name}")
        section = section.partition("\n##")[0]
        for key in plugin_settings.parameters(kind, name):
            assert f"| `{key}` |" in section


def test_editors_accept_the_studies_of_the_project() -> None:
    for path in [PROJECT / "config.yaml", *PROJECT.glob("workflow/studies/*.yaml")]:
        text = path.read_text(encoding="utf-8")
        jsonschema.validate(yaml.safe_load(text), SCHEMA)
        first = text.splitlines()[0]
        assert first.startswith("# yaml-language-server: $schema=")
        assert (path.parent / first.partition("=")[2]).resolve() == PROJECT / reference.JSON_SCHEMA


@pytest.mark.parametrize(
    "edits",
    [
        {"model": "cnn"},
        {"model": "timm:resnet18"},
        {"model": {"name": "my_project.networks:SmallNet", "width": 3}},
        {"experiments/scratch_few": {}},
        {"seeds": 3},
        {"prepare/tokenizer": {"from": "other"}},
        {"finetune/learning_rate": 0.1},
        {"finetune/ema_decay": None},
    ],
)
def test_editors_accept_short_forms(edits: dict[str, Any]) -> None:
    jsonschema.validate(edited(edits), SCHEMA)


@pytest.mark.parametrize(
    "edits",
    [
        {"modle": "cnn"},
        {"model": "cn"},
        {"model": {"name": "cnn", "depth": 3}},
        {"experiments/scratch_few/step": 3},
        {"finetune/steps": DELETE},
        {"finetune/steps": 0},
        {"threads": "2"},
        {"schema": 1},
    ],
)
def test_editors_mark_what_is_wrong(edits: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(edited(edits), SCHEMA)
