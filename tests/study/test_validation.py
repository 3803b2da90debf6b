"""A study that cannot run is refused as a whole, in one message, before anything starts."""

from collections.abc import Callable
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
    "missing key": (put("threads", DELETE), "the key threads is missing"),
    "missing section": (put("experiments", DELETE), "the key experiments is missing"),
    "text for a number": (put("finetune/weight_decay", "1e-3"), "write 0.001"),
    "text for a whole number": (put("threads", "2"), "write 2"),
    "not a number": (put("finetune/weight_decay", float("nan")), "not a finite number"),
    "infinite": (put("pretrain/self_supervised/learning_rate", float("inf")), "finite"),
    "negative rate": (put("pretrain/self_supervised/learning_rate", -1), "more than 0"),
    "zero rate": (put("finetune/learning_rate/head", 0), "more than 0"),
    "negative size": (put("model/width", -3), "it must be > 0"),
    "zero batch": (put("finetune/batch_size", 0), "at least 1"),
    "fraction for a count": (put("finetune/steps", 2.5), "not a whole number"),
    "truth for a number": (put("threads", True), "not a whole number"),
    "unknown data set": (put("prepare/dataset/name", "digit"), "did you mean digits?"),
    "unknown model": (put("model/name", "cn"), "did you mean cnn?"),
    "unknown objective": (put("finetune/objective/name", "clasification"), "mean classification?"),
    "unknown pretraining": (
        put("experiments/frozen_few/pretraining", "self_supervized"),
        "did you mean self_supervised?",
    ),
    "unknown setting of a model": (put("model/depth", 3), "model cnn takes no such setting"),
    "missing setting of a model": (put("model/width", DELETE), "the key width is missing"),
    "wrong type for a model": (put("model/width", "wide"), "'wide' is not a whole number"),
    "setting out of range": (put("finetune/objective/label_smoothing", 1), "it must be < 1"),
    "unsafe name": (put("experiments/a b", {"pretraining": "none"}), "no safe name"),
    "path as a name": (put("experiments/..", {"pretraining": "none"}), "no safe name"),
    "number as a name": (put("experiments", {7: {"pretraining": "none"}}), "put it in quotes"),
    "stage as a name": (put("experiments/finetune", {"pretraining": "none"}), "another name"),
    "names alike": (put("experiments/Scratch_Few", {"pretraining": "none"}), "upper and lower"),
    "study outside": (put("study", "../elsewhere"), "no safe name"),
    "too many labels": (put("finetune/labels_per_class", 106), "at most 105"),
    "words for labels": (put("finetune/labels_per_class", "everything"), "not one of all"),
    "negative labels": (put("finetune/labels_per_class", -1), "at least 1"),
    "batch over the data": (put("finetune/batch_size", 51), "write at most 50"),
    "uneven validation": (put("finetune/steps", 7), "write 8"),
    "warm-up over all": (put("finetune/warmup_steps", 6), "leaves nothing"),
    "batch of one": (put("finetune/batch_size", 1), "write at least 2"),
    "target beyond": (put("report/target", 90), "write a number from 0 to 1"),
    "study with a newline": (put("study", "digits\n"), "no safe name"),
    "no seed": (put("seeds", []), "is empty"),
    "a seed twice": (put("seeds", [1, 1]), "twice"),
    "negative seed": (put("seeds", [-1]), "at least 0"),
    "one seed without list": (put("seeds", 3), "not a list"),
    "unknown device": (put("device", "gpus"), "did you mean gpu?"),
    "unknown precision": (put("precision", 32), "32-true"),
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
        "does not go with compile: reduce-overhead",
    ),
    "batch that cannot be shared": (put("devices", 4), "write 48"),
    "share of a batch that is too small": (
        lambda found: (put("devices", 25)(found), put("finetune/batch_size", 25)(found)),
        "write at least 50",
    ),
    "compiling on several devices": (
        lambda found: (put("devices", 2)(found), put("compile", "default")(found)),
        "works on one device",
    ),
    "weights cut for one device": (put("finetune/fsdp", True), "write devices: 2"),
    "weights cut in half precision": (
        lambda found: (
            put("devices", 2)(found),
            put("device", "gpu")(found),
            put("precision", "16-mixed")(found),
            put("pretrain/self_supervised/fsdp", True)(found),
        ),
        "goes with bf16-mixed or 32-true",
    ),
    "no device": (put("devices", 0), "at least 1"),
    "section without content": (put("experiments", None), "nothing is not a mapping"),
    "empty experiment": (put("experiments/scratch_few", None), "nothing is not a mapping"),
    "text without a tokenizer": (
        put("prepare/dataset", {"name": "python_topics"}),
        "prepare: python_topics is text: add a tokenizer",
    ),
    "a tokenizer for images": (
        put("prepare/tokenizer", {"name": "bytes"}),
        "prepare.tokenizer: digits is no text",
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
        "next_token learns from text, and Optical recognition of handwritten digits is image",
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
    "no module at all": (put("model", {"name": "a b:c"}), "'a b:c' is no package.module:name"),
    "texts from what cannot write": (
        put("evaluate/generate", {"prompts": ["a"], "tokens": 1, "temperature": 1, "top_k": 1}),
        "evaluate.generate: classification cannot generate text: delete it",
    ),
    "a folder of data that is not there": (
        put("execution/data_folder", "nowhere"), "nowhere: there is no such folder",
    ),
    "a comparison of other data": (
        lambda found: (
            found["prepare"].update(additional={"more": {"dataset": {"name": "mnist"}}}),
            found["experiments"]["scratch_few"].update(data="more"),
        ),
        "finetuned_few and scratch_few are tested on other data",
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
        "takes no such setting; did you mean width?",
    ),
    "other data with the name of the first": (
        put("prepare/additional", {"default": {"dataset": {"name": "digits"}}}),
        "prepare.additional.default: 'default' means something else here",
    ),
    "unsafe name of other data": (
        put("prepare/additional", {"a b": {"dataset": {"name": "digits"}}}), "no safe name",
    ),
    "a tokenizer of data that has none": (
        put("prepare", {
            "dataset": {"name": "python_functions", "max_length": 8},
            "tokenizer": {"from": "pictures"},
            "additional": {"pictures": {"dataset": {"name": "digits"}}},
        }),
        "pictures has no tokenizer",
    ),
    "a model of images for texts": (
        put("prepare", {
            "dataset": {"name": "python_functions", "max_length": 8},
            "tokenizer": {"name": "bytes"},
        }),
        "model.name: cnn takes image, and Functions of Python's standard library is text",
    ),
    "labels for an objective that reads none": (
        put("finetune/objective", {"name": "next_token"}), "5: next_token reads no labels",
    ),
    "a network within a model that is one": (put("model/name", "cnn:small"), "write cnn"),
    "a library without a network": (put("model", {"name": "timm"}), "write timm: and the name"),
    "a part of a data set": (put("prepare/dataset/name", "digits:three"), "is a file in"),
    "a part of an objective": (
        put("finetune/objective/name", "classification:mine"), "is a file in",
    ),
}  # fmt: skip

TEXTS = {
    "duplicate key": ("study: a\nstudy: b\n", "line 2: study stands twice, first in line 1"),
    "no YAML": ("study: [a\n", "not valid YAML"),
    "tab": ("study:\n\tname: a\n", "not valid YAML"),
    "empty": ("", "is empty"),
    "a list": ("- a\n", "holds list"),
    "recursion": ("study: &a [*a]\n", "inside its own anchor"),
    "octal": ("threads: 010\n", "YAML reads 010 as 8"),
    "base 60": ("threads: 1:30\n", "YAML reads 1:30 as 90"),
    "bad date": ("study: 2024-13-45\n", "not valid YAML"),
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
def test_a_file_that_is_no_study_is_refused(case: str, tmp_path: Path) -> None:
    text, expected = TEXTS[case]
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    found = message(path)
    assert expected in found
    assert found.count(str(path)) == 1


def test_a_missing_file_and_a_file_that_is_no_text_are_refused(tmp_path: Path) -> None:
    assert "no such file" in message(tmp_path / "nowhere.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in message(tmp_path / "binary.yaml")
    assert "cannot be read" in message(tmp_path)


def test_all_problems_of_a_kind_are_told_at_once(tmp_path: Path) -> None:
    found = tiny_study() | {"threads": 0, "device": "tpu", "extra": 1}
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump(found))
    assert "(3 problems)" in message(tmp_path / "broken.yaml")


def test_the_studies_of_the_project_can_run() -> None:
    for path in [PROJECT / "config.yaml", *PROJECT.glob("workflow/studies/*.yaml")]:
        assert loading.read(path)["experiments"]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_whatever_stands_in_a_study_it_is_read_or_refused(tmp_path_factory, data) -> None:
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
    checkout.edit("config.yaml", "weight_decay: 0.01", "weight_decay: 1e-2")
    done = checkout.run("snakemake", "-n")
    text = done.stdout + done.stderr
    assert done.returncode != 0
    assert "config.yaml, line" in text
    assert "finetune.weight_decay: '1e-2' is not a number: YAML takes it for text" in text
    assert "Traceback" not in text
    assert 'File "' not in text
    assert not (checkout.folder / "results").exists()


def test_a_gpu_that_is_not_there_is_an_error_before_anything_runs(checkout: Checkout) -> None:
    done = checkout.run("snakemake", "-n", "--config", "device=gpu")
    assert done.returncode != 0
    assert "there is no NVIDIA GPU here" in done.stdout + done.stderr
