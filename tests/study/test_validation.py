"""A study that cannot run is refused with one report of all its errors, before anything starts."""

import datetime
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.checkout import PROJECT, Checkout, tiny_study

from assay.study import loading

Edit = Callable[[dict], object]
DELETE = object()


def put(path: str, value: object) -> Edit:
    """An edit: set a key, given by its path, or delete it."""

    def edit(found: dict) -> None:
        *parents, last = path.split("/")
        for parent in parents:
            found = found[parent]
        if value is DELETE:
            del found[last]
        else:
            found[last] = value

    return edit


BROKEN = {
    "misspelt key": (put("seedz", [1]), "seedz: there is no such key here; did you mean seeds?"),
    "misspelt section": (put("evaluat", {}), "evaluat: there is no such key here; did you mean"),
    "misspelt key of data": (put("prepare/datasets", {}), "prepare.datasets: there is no such key"),
    "misspelt key of a pretraining": (
        put("pretrain/self_supervised/step", 4),
        "self_supervised.step: there is no such key",
    ),
    "misspelt key of an experiment": (
        put("experiments/scratch_few/lables_per_class", 1),
        "did you mean labels_per_class?",
    ),
    "misspelt key of execution": (put("execution/fork_servr", True), "did you mean fork_server?"),
    "misspelt key of evaluation": (put("evaluate/batchsize", 1), "did you mean batch_size?"),
    "misspelt key of the report": (put("report/metrics", "x"), "did you mean metric?"),
    "misspelt learning rate": (
        put("finetune/learning_rate", {"backbone": 1, "heads": 1}),
        "finetune.learning_rate.heads: there is no such key here; did you mean head?",
    ),
    "key of the next section": (put("steps", 4), "steps: there is no such key here"),
    "setting of a job": (put("execution/intervals", 1), "intervals: there is no such key here"),
    "missing key": (
        put("finetune/steps", DELETE),
        "finetune.steps: is missing: add it, an integer",
    ),
    "missing section": (put("experiments", DELETE), "experiments: is missing: add it"),
    "missing data set": (put("prepare/dataset", DELETE), "prepare.dataset: is missing"),
    "missing objective": (
        put("pretrain/self_supervised/objective", DELETE),
        "self_supervised.objective: is missing",
    ),
    "missing learning rate": (
        put("finetune/learning_rate", {"backbone": 1}),
        "learning_rate.head: is missing: add it, a",
    ),
    "missing name of a model": (
        put("model/name", DELETE),
        "model.name: is missing: add the name of",
    ),
    "missing rank": (put("experiments/scratch_few/lora", {"alpha": 1}), "lora.rank: is missing"),
    "missing currency": (put("report/cost", {"per_hour": 1}), "report.cost.currency: is missing"),
    "missing prompts": (put("evaluate/generate", {}), "evaluate.generate.prompts: is missing"),
    "text for a number": (put("finetune/weight_decay", "0.1 "), "write 0.1 without quotes"),
    "words for a number": (put("finetune/weight_decay", "much"), "'much' is not a number"),
    "list for a number": (put("finetune/weight_decay", [1]), "[1] is not a number"),
    "nothing for a number": (
        put("finetune/weight_decay", None),
        "null is not a number: add a value",
    ),
    "text for an integer": (put("threads", "2"), "'2' is not an integer: write 2 without quotes"),
    "nothing for an integer": (put("threads", None), "null is not an integer: add a value"),
    "huge integer": (put("finetune/steps", 10**30), "it must be at most 1000000000"),
    "huge number": (put("finetune/weight_decay", 1e300), "it must be at most 1000"),
    "huge integer for a number": (put("finetune/weight_decay", 10**400), "at most 1000"),
    "truth for a rate": (put("finetune/learning_rate", True), "true is not a number or a mapping"),
    "text for a rate": (
        put("finetune/learning_rate", "fast"),
        "'fast' is not a number or a mapping",
    ),
    "text for truth": (put("finetune/fsdp", "yes"), "'yes' is not true or false"),
    "number for truth": (put("execution/fork_server", 1), "1 is not true or false"),
    "number for text": (put("question", 5), "5 is not text: put it in quotes"),
    "truth for a name": (put("study", True), "true is not text: put it in quotes"),
    "empty question": (put("question", ""), "question: is empty"),
    "long question": (put("question", "?" * 301), "is too long: at most 300"),
    "number for a plug-in": (put("model", 5), "model: 5 is not a mapping"),
    "list for a plug-in": (put("model", ["cnn"]), "model: ['cnn'] is not a mapping"),
    "number for the name of a plug-in": (put("model/name", 5), "5 is not the name of a model"),
    "text for a section": (
        put("finetune", "fast"),
        "finetune: 'fast' is not a mapping (key: value)",
    ),
    "list for a section": (put("experiments", ["scratch"]), "is not a mapping (key: value)"),
    "text for a list": (put("finetune/frozen", "backbone"), "write [backbone]"),
    "text for seeds": (put("seeds", "all"), "seeds: 'all' is not a list or an integer"),
    "no seeds": (put("seeds", 0), "seeds: 0 is out of range: it must be at least 1"),
    "too many seeds": (put("seeds", 10**7), "it must be at most 10000"),
    "text for a seed": (put("seeds", [0, "one"]), "seeds.1: 'one' is not an integer"),
    "huge seed": (put("seeds", [2**32]), "seeds.0: 4294967296 is out of range"),
    "half a step": (put("finetune/validate_every_steps", 0.5), "0.5 is not an integer"),
    "no decay": (
        put("finetune/ema_decay", 1),
        "ema_decay: 1 is out of range: it must be less than 1",
    ),
    "free computing": (
        put("report/cost", {"per_hour": 0, "currency": "EUR"}),
        "it must be more than 0",
    ),
    "prompt that is no text": (
        put("evaluate/generate", {"prompts": [1]}),
        "prompts.0: 1 is not text: put it in quotes",
    ),
    "no baseline": (
        put("report/comparisons/frozen_few", []),
        "frozen_few: is empty: give at least",
    ),
    "text for a baseline": (
        put("report/comparisons/frozen_few", "scratch_few"),
        "write [scratch_few]",
    ),
    "unknown clock": (put("report/clock", "step"), "did you mean steps?"),
    "date for a number": (
        put("threads", datetime.date(2026, 1, 1)),
        "'2026-01-01' is not an integer",
    ),
    "a setting of another plug-in": (
        put("prepare/dataset/pixels", 8),
        "dataset digits has no such setting",
    ),
    "a tokenizer with a source and a name": (
        put(
            "prepare", {"dataset": "python_topics", "tokenizer": {"from": "default", "name": "bpe"}}
        ),
        "prepare.tokenizer.name: has no meaning beside `from`: delete it",
    ),
    "a source that is no name": (
        put("prepare", {"dataset": "python_topics", "tokenizer": {"from": 1}}),
        "prepare.tokenizer.from: 1 is not the name of data",
    ),
    "not a number": (put("finetune/weight_decay", float("nan")), "not a finite number"),
    "infinite": (put("pretrain/self_supervised/learning_rate", float("inf")), "finite"),
    "negative rate": (put("pretrain/self_supervised/learning_rate", -1), "more than 0"),
    "zero rate": (put("finetune/learning_rate/head", 0), "more than 0"),
    "negative size": (put("model/width", -3), "it must be more than 0"),
    "zero batch": (put("finetune/batch_size", 0), "at least 1"),
    "fraction for a count": (put("finetune/steps", 2.5), "2.5 is not an integer"),
    "truth for a number": (put("threads", True), "true is not an integer"),
    "unknown data set": (put("prepare/dataset/name", "digit"), "did you mean digits?"),
    "unknown model": (put("model/name", "cn"), "did you mean cnn?"),
    "unknown objective": (put("finetune/objective/name", "clasification"), "mean classification?"),
    "unknown pretraining": (
        put("experiments/frozen_few/pretraining", "self_supervized"),
        "did you mean self_supervised?",
    ),
    "unknown setting of a model": (
        put("model/depth", 3),
        "model cnn has no such setting; did you mean width?",
    ),
    "missing setting of a data set": (
        put("prepare/dataset", "image_folder"),
        "dataset.folder: is missing: add it, the path of",
    ),
    "wrong type for a model": (put("model/width", "wide"), "'wide' is not an integer"),
    "setting out of range": (
        put("finetune/objective/label_smoothing", 1),
        "it must be less than 1",
    ),
    "unsafe name": (put("experiments/a b", {"pretraining": "none"}), "not a safe name"),
    "path as a name": (put("experiments/..", {"pretraining": "none"}), "not a safe name"),
    "number as a name": (put("experiments", {7: {"pretraining": "none"}}), "put it in quotes"),
    "stage as a name": (put("experiments/finetune", {"pretraining": "none"}), "another name"),
    "names alike": (put("experiments/Scratch_Few", {"pretraining": "none"}), "upper and lower"),
    "study outside": (put("study", "../elsewhere"), "not a safe name"),
    "too many labels": (put("finetune/labels_per_class", 106), "at most 105"),
    "words for labels": (
        put("finetune/labels_per_class", "everything"),
        "'everything' is not an integer or all",
    ),
    "negative labels": (put("finetune/labels_per_class", -1), "at least 1"),
    "batch over the data": (put("finetune/batch_size", 51), "write at most 50"),
    "uneven validation": (put("finetune/steps", 7), "write 8"),
    "warm-up over all": (put("finetune/warmup_steps", 6), "leaves nothing"),
    "batch of one": (put("finetune/batch_size", 1), "write at least 2"),
    "target beyond": (put("report/target", 90), "write a number from 0 to 1"),
    "study with a newline": (put("study", "digits\n"), "not a safe name"),
    "no seed": (put("seeds", []), "is empty"),
    "a seed twice": (put("seeds", [1, 1]), "twice"),
    "negative seed": (put("seeds", [-1]), "at least 0"),
    "unknown device": (put("device", "gpus"), "did you mean gpu?"),
    "unknown precision": (put("precision", 32), "did you mean 32-true?"),
    "unknown part": (put("finetune/frozen", ["backbon"]), "did you mean backbone?"),
    "unknown figure": (put("report/figures", ["score"]), "did you mean scores?"),
    "unknown comparison": (put("report/comparisons/frozen_few", ["scratch"]), "scratch_few?"),
    "compared with itself": (put("report/comparisons/scratch_few", ["scratch_few"]), "itself"),
    "other model than pretrained": (
        put("experiments/frozen_few/model", {"name": "cnn", "width": 9, "features": 16}),
        "differs from the model of its pretraining",
    ),
    "unknown metric": (put("report/metric", "acuracy"), "did you mean accuracy?"),
    "objective without metrics": (
        put(
            "finetune/objective",
            {
                "name": "masked_image",
                "patch_pixels": 2,
                "masked_fraction": 0.5,
                "hidden_features": 8,
            },
        ),
        "states no METRICS",
    ),
    "half precision on a CPU": (put("precision", "16-mixed"), "needs a GPU"),
    "CUDA graphs on a CPU": (put("compile", "reduce-overhead"), "needs a GPU"),
    "CUDA graphs of several batches": (
        lambda found: (
            put("device", "gpu")(found),
            put("compile", "reduce-overhead")(found),
            put("finetune/gradient_accumulation_steps", 2)(found),
        ),
        "does not work with compile: reduce-overhead",
    ),
    "batch that cannot be shared": (put("devices", 4), "write 48"),
    "share of a batch that is too small": (
        lambda found: (put("devices", 25)(found), put("finetune/batch_size", 25)(found)),
        "write at least 50",
    ),
    "compiling on several devices": (
        lambda found: (put("devices", 2)(found), put("compile", "default")(found)),
        "works on a single device",
    ),
    "weights cut for one device": (put("finetune/fsdp", True), "write devices: 2"),
    "weights cut in half precision": (
        lambda found: (
            put("devices", 2)(found),
            put("device", "gpu")(found),
            put("precision", "16-mixed")(found),
            put("pretrain/self_supervised/fsdp", True)(found),
        ),
        "works with bf16-mixed or 32-true",
    ),
    "no device": (put("devices", 0), "at least 1"),
    "section without content": (put("experiments", None), "null is not a mapping (key: value)"),
    "empty experiment": (
        put("experiments/scratch_few", None),
        "scratch_few: null is not a mapping",
    ),
    "text without a tokenizer": (
        put("prepare/dataset", {"name": "python_topics"}),
        "prepare: python_topics is a text data set: add a tokenizer",
    ),
    "a tokenizer for images": (
        put("prepare/tokenizer", {"name": "bytes"}),
        "prepare.tokenizer: digits is not a text data set",
    ),
    "an unknown tokenizer": (
        put("prepare", {"dataset": {"name": "python_topics"}, "tokenizer": {"name": "byte"}}),
        "did you mean bytes?",
    ),
    "a tokenizer of data that there is not": (
        put("prepare", {"dataset": {"name": "python_topics"}, "tokenizer": {"from": "broad"}}),
        "prepare.tokenizer.from: there is no data 'broad'",
    ),
    "tokenizers in a circle": (
        put("prepare", {"dataset": {"name": "python_topics"}, "tokenizer": {"from": "default"}}),
        "leads back to itself",
    ),
    "unknown data": (put("experiments/scratch_few/data", "other"), "there is no data 'other'"),
    "an objective for texts": (
        put("finetune/objective", {"name": "next_token"}),
        "next_token learns from text data, and Optical recognition of handwritten digits is image",
    ),
    "two adaptations": (
        put("experiments/frozen_few/lora", {"rank": 2, "alpha": 4}),
        "frozen and lora exclude each other: keep one",
    ),
    "a value that is no choice": (
        put(
            "model",
            {
                "name": "vit",
                "patch_pixels": 2,
                "layers": 1,
                "heads": 1,
                "width": 4,
                "pool": "means",
            },
        ),
        "'means' is not one of mean, token; did you mean mean?",
    ),
    "a module that is not there": (
        put("model", {"name": "mine.net:Net"}),
        "there is no module mine.net: put its file below",
    ),
    "no module at all": (
        put("model", {"name": "a b:c"}),
        "'a b:c' is not of the form package.module:name",
    ),
    "texts from what cannot write": (
        put("evaluate/generate", {"prompts": ["a"], "tokens": 1, "temperature": 1, "top_k": 1}),
        "evaluate.generate: classification cannot generate text: delete it",
    ),
    "a folder of data that is not there": (
        put("execution/data_folder", "nowhere"),
        "nowhere: there is no such folder",
    ),
    "a comparison of other data": (
        lambda found: (
            found["prepare"].update(additional={"more": {"dataset": {"name": "mnist"}}}),
            found["experiments"]["scratch_few"].update(data="more"),
        ),
        "finetuned_few and scratch_few are tested on different data",
    ),
    "files that are not there": (
        put(
            "prepare/dataset",
            {
                "name": "image_folder",
                "folder": "nowhere",
                "pixels": 8,
                "colour": True,
                "crop": "none",
                "unreadable": "stop",
            },
        ),
        "prepare.dataset.folder: 'nowhere': there is no such file or folder",
    ),
    "a function without an argument of that name": (
        put(
            "model",
            {
                "name": "assay.models.cnn:CNN",
                "channels": 1,
                "width": 2,
                "depth": 3,
            },
        ),
        "has no such setting; did you mean width?",
    ),
    "other data with the name of the first": (
        put("prepare/additional", {"default": {"dataset": {"name": "digits"}}}),
        "prepare.additional.default: 'default' has another meaning here",
    ),
    "unsafe name of other data": (
        put("prepare/additional", {"a b": {"dataset": {"name": "digits"}}}),
        "not a safe name",
    ),
    "a tokenizer of data that has none": (
        put(
            "prepare",
            {
                "dataset": {"name": "python_functions", "max_length": 8},
                "tokenizer": {"from": "pictures"},
                "additional": {"pictures": {"dataset": {"name": "digits"}}},
            },
        ),
        "pictures has no tokenizer",
    ),
    "a model of images for texts": (
        put(
            "prepare",
            {
                "dataset": {"name": "python_functions", "max_length": 8},
                "tokenizer": {"name": "bytes"},
            },
        ),
        "model.name: cnn takes image data, and Functions of Python's standard library is text",
    ),
    "labels for an objective that reads none": (
        put("finetune/objective", {"name": "next_token"}),
        "5: next_token reads no labels",
    ),
    "a network within a model that is one": (put("model/name", "cnn:small"), "write cnn"),
    "a library without a network": (put("model", {"name": "timm"}), "write timm: and the name"),
    "a part of a data set": (put("prepare/dataset/name", "digits:three"), "is a file in"),
    "a part of an objective": (
        put("finetune/objective/name", "classification:mine"),
        "is a file in",
    ),
}

TEXTS = {
    "duplicate key": ("study: a\nstudy: b\n", "line 2: study: is there twice, in lines 1 and 2"),
    "no YAML": ("study: [a\n", "line 2: is not valid YAML"),
    "tab": ("study:\n\tname: a\n", "line 2: is not valid YAML"),
    "two documents": ("study: a\n---\nstudy: b\n", "is not valid YAML"),
    "empty": ("", "is empty"),
    "comments alone": ("# study: a\n", "is empty"),
    "a list": ("- a\n", "is not a mapping (key: value)"),
    "text": ("digits\n", "is not a mapping (key: value)"),
    "recursion": (
        "study: &a [*a]\n",
        "line 1: study.0: an alias (*name) refers to what contains it",
    ),
    "unknown alias": ("study: *a\n", "found undefined alias"),
    "alias bomb": (
        "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
        + "".join(
            f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
            for before, name in pairwise("abcdefghijklmnop")
        ),
        "aliases (*name) expand to more than 100000 values",
    ),
    "nested lists": ("study: " + "[" * 100_000, "is nested more than 50 levels deep"),
    "nested mappings": ("".join(" " * i + "a:\n" for i in range(60)), "more than 50 levels deep"),
    "octal": ("threads: 010\n", "threads: YAML reads 010 as 8"),
    "base 60": ("threads: 1:30\n", "threads: YAML reads 1:30 as 90"),
    "a set": ("study: !!set {a}\n", "the tag !!set is not supported"),
    "an object": ("study: !!python/object:os.system a\n", "is not supported: delete it"),
    "a list for a key": ("? [a]\n: b\n", "line 1: a key must be text"),
    "a number of many digits": ("threads: " + "9" * 5000, "is not valid YAML"),
    "no schema": ("study: a\n", "run `assay convert FILE`"),
    "an older schema": ("schema: 1\n", "schema: 1 is an older format: run `assay convert FILE`"),
    "a newer schema": ("schema: 3\n", "3 is not a format that this version of Assay knows"),
    "words for the schema": ("schema: two\n", "'two' is not a format that this version"),
    "truth for the schema": ("schema: true\n", "true is not a format that this version"),
}


def message(path: Path) -> str:
    with pytest.raises(loading.StudyError) as caught:
        loading.read(path)
    return str(caught.value)


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_study_is_refused_with_file_key_and_remedy(case: str, tmp_path: Path) -> None:
    edit, expected = BROKEN[case]
    found = tiny_study()
    edit(found)
    path = tmp_path / "broken.yaml"
    path.write_text(yaml.safe_dump(found, sort_keys=False))
    text = message(path)
    assert expected in text
    assert str(path) in text


def test_compiling_without_a_compiler_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    path = tmp_path / "broken.yaml"
    path.write_text(yaml.safe_dump(tiny_study() | {"compile": "default"}))
    assert "compile: default needs the C++ compiler no-such-compiler" in message(path)


@pytest.mark.parametrize("case", TEXTS)
def test_a_file_that_is_not_a_study_is_refused_in_one_report(case: str, tmp_path: Path) -> None:
    text, expected = TEXTS[case]
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    found = message(path)
    assert expected in found
    assert all(str(path) in line for line in found.splitlines()[1:])


def test_a_missing_file_and_a_file_that_is_not_text_are_refused(tmp_path: Path) -> None:
    assert "no such file" in message(tmp_path / "nowhere.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in message(tmp_path / "binary.yaml")
    assert "cannot be read" in message(tmp_path)


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
    first, *lines = message(path).splitlines()
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


def test_an_error_that_experiments_inherit_is_reported_once_where_it_is_written(
    tmp_path: Path,
) -> None:
    found = tiny_study()
    found["finetune"]["objective"] = "next_token"
    found["finetune"]["labels_per_class"] = "all"
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump(found, sort_keys=False))
    text = message(tmp_path / "broken.yaml")
    assert text.count("learns from text data") == 1
    assert "finetune.objective.name: next_token learns from text" in text


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
