"""A study is read as a whole: all its errors are reported at once, before anything starts."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.checkout import PROJECT, Checkout, tiny_study
from support.studies import refusal

from assay.study import loading

MANY = """schema: 2
study: digits!
threads: 0
treads: 1
seeds: 010
threads: 1
prepare: { dataset: digts }
model: { name: cnn, width: wide, depth: 2 }
finetune:
  steps: 7
  validate_every_steps: 2
  batch_size: 2.5
  labels_per_class: 200
experiments:
  scratch: { pretraining: self }
  tuned: { lora: { rank: 1, alpha: 1 }, frozen: [backbone] }
report:
  figures: [score]
  comparisons: { scratch: [tund] }
"""


def test_errors_of_all_kinds_are_reported_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(MANY)
    first, *lines = refusal(path).splitlines()
    assert first == "The study cannot run (13 problems):"
    expected = [
        (2, "study: 'digits!' is not a safe name"),
        (4, "treads: there is no such key here; did you mean threads?"),
        (5, "seeds: YAML reads 010 as 8"),
        (6, "threads: is there twice, in lines 3 and 6"),
        (7, "prepare.dataset.name: there is no dataset 'digts'"),
        (8, "model.width: 'wide' is not an integer"),
        (8, "model.depth: model cnn has no such setting"),
        (10, "finetune.steps: 7 is not a multiple of validate_every_steps (2): write 8"),
        (12, "finetune.batch_size: 2.5 is not an integer"),
        (15, "experiments.scratch.pretraining: there is no pretraining 'self'; available: none"),
        (16, "experiments.tuned: frozen and lora exclude each other"),
        (18, "report.figures.0: there is no figure 'score'; did you mean scores?"),
        (19, "report.comparisons.scratch: there is no experiment 'tund'; did you mean tuned?"),
    ]
    assert len(lines) == len(expected)
    for line, (number, text) in zip(lines, expected, strict=True):
        assert line.startswith(f"  {path}, line {number}: {text}")


def test_values_of_the_command_line_are_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(tiny_study() | {"precision": "64"}, sort_keys=False))
    with pytest.raises(loading.StudyError) as caught:
        loading.read(path, {"threads": "0", "finetune": {"weight_decay": "-1e-3"}, "sedes": 1})
    lines = str(caught.value).splitlines()
    assert "  --config: threads: 0 is out of range: it must be at least 1" in lines
    assert "  --config: sedes: there is no such key here; did you mean seeds?" in lines
    assert any(line.startswith("  --config: finetune.weight_decay: -0.001") for line in lines)
    assert any(line.startswith(f"  {path}, line ") and "precision" in line for line in lines)


def test_a_date_and_a_number_with_an_exponent_are_read_as_yaml_1_2_does(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    study = yaml.safe_dump(tiny_study(), sort_keys=False)
    study = study.replace("study: digits", "study: 2024-13-45")
    path.write_text(study.replace("weight_decay: 0.01", "weight_decay: 1e-2"))
    found = loading.read(path)
    assert found.study == "2024-13-45"
    assert found.finetune.weight_decay == 0.01


def test_the_studies_of_the_project_can_run() -> None:
    for path in [PROJECT / "config.yaml", *PROJECT.glob("workflow/studies/*.yaml")]:
        assert loading.read(path).experiments


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_study_with_any_content_is_read_or_refused(tmp_path_factory, data) -> None:
    leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates()
    junk = st.recursive(
        leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text() | leaves, inner)
    )
    found = tiny_study()
    node, place = found, data.draw(st.sampled_from(sorted(found)))
    while isinstance(node[place], dict) and node[place] and data.draw(st.booleans()):
        node = node[place]
        place = data.draw(st.sampled_from(sorted(node)))
    node[place] = data.draw(junk)
    path = tmp_path_factory.getbasetemp() / "junk.yaml"
    path.write_text(yaml.safe_dump(found, allow_unicode=True), encoding="utf-8")
    try:
        loading.read(path)
    except loading.StudyError as error:
        assert "Traceback" not in str(error)


def test_snakemake_shows_the_message_alone_and_fails(checkout: Checkout) -> None:
    checkout.edit("config.yaml", "weight_decay: 0.01", "weight_decay: much")
    done = checkout.run("snakemake", "-n")
    text = done.stdout + done.stderr
    assert done.returncode != 0
    assert "config.yaml, line" in text
    assert "finetune.weight_decay: 'much' is not a number" in text
    assert "Traceback" not in text
    assert 'File "' not in text
    assert not (checkout.folder / "results").exists()


def test_a_gpu_that_is_not_there_is_an_error_before_anything_runs(checkout: Checkout) -> None:
    done = checkout.run("snakemake", "-n", "--config", "device=gpu")
    assert done.returncode != 0
    assert "there is no NVIDIA GPU here" in done.stdout + done.stderr
