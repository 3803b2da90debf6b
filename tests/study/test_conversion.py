"""A study of schema 1 is upgraded by editing its text."""

from pathlib import Path

import pytest
from support.checkout import PROJECT

from assay.study import conversion, loading

OLD = sorted(Path(__file__).with_name("schema_1").glob("*.yaml"))  # as of the last such version
EVERYTHING = """# what it is for
study: old   # kept
execution: { warm_start: false }
prepare:
  dataset: { name: text_files, files: texts, "validation_share": 0.2, test_share: 0.1 }
  tokenizer: { of: main }
  further: { more: { dataset: { name: python_functions, tokens_per_text: 8 } } }
model: { name: gpt, context: 8, tied: true }
pretrain:
  start:
    data: main
    model: { name: 'assay.models.cnn:ConvolutionalNetwork', context: 8 }
    accumulate_batches: 2
    sharded: true
finetune: &common
  patience: 3
  objective: { name: lightning, module: "assay.own:Net", arguments: { mirror: true, data: main } }
experiments:
  mirror: { <<: *common, trained_blocks: 1, average_decay: 0.9, data: mine }
report: { price: { per_hour: 1 }, metric: mirror }
"""


@pytest.mark.parametrize("path", OLD, ids=lambda path: path.stem)
def test_each_study_of_schema_1_becomes_the_present_one(path: Path, tmp_path: Path) -> None:
    text, changes = conversion.convert(path.read_text())
    (tmp_path / path.name).write_text(text)
    name = path.name if path.name == "config.yaml" else f"workflow/studies/{path.name}"
    assert loading.read(tmp_path / path.name) == loading.read(PROJECT / name)
    assert "line 4: added schema: 2" in changes or "line 5: added schema: 2" in changes


def test_keys_get_their_new_names_and_nothing_else_changes() -> None:
    text, changes = conversion.convert(EVERYTHING)
    expected = EVERYTHING
    for old, new in {
        "study: old": "schema: 2\nstudy: old", "warm_start": "fork_server",
        '"validation_share"': '"validation_fraction"', "test_share": "test_fraction",
        "{ of: main }": "{ from: default }", "further": "additional",
        "tokens_per_text": "max_length", "gpt, context": "gpt, context_length",
        "tied": "tie_embeddings", "    data: main": "    data: default",
        "cnn:ConvolutionalNetwork": "cnn:CNN", "accumulate_batches": "gradient_accumulation_steps",
        "sharded": "fsdp", "patience": "early_stopping_patience",
        "assay.own:Net": "assay.nn.user_modules:Net", "trained_blocks": "unfrozen_blocks",
        "average_decay": "ema_decay", "price": "cost",
    }.items():  # fmt: skip
        expected = expected.replace(old, new)
    assert text == expected
    assert "line 16: finetune.patience -> early_stopping_patience" in changes
    assert "line 6: prepare.tokenizer.of: main -> default" in changes
    assert len(changes) == 19


def test_a_study_of_the_present_schema_is_left_as_it_is() -> None:
    text = (PROJECT / "config.yaml").read_text()
    assert conversion.convert(text) == (text, [])


def test_a_study_that_states_schema_1_states_schema_2_afterwards() -> None:
    assert conversion.convert("{schema: 1, study: a}")[0] == "{schema: 2, study: a}"
    assert conversion.convert("{study: a}")[0] == "{schema: 2, study: a}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("schema: 3\nstudy: a\n", "schema: 3 is not a format that this version of Assay knows"),
        ("study: [a\n", "line 2: is not valid YAML"),
        ("", "is empty"),
    ],
)
def test_what_is_not_an_older_study_is_refused(text: str, expected: str) -> None:
    with pytest.raises(loading.StudyError, match=expected):
        conversion.convert(text)
