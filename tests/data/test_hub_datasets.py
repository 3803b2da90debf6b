"""Data sets that the library `datasets` reads, from local files; nothing is downloaded."""

import importlib.util
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from assay.data import hub_datasets
from assay.datasets import huggingface_image, huggingface_text
from assay.runs.errors import ExitCode, JobError

LIBRARY = importlib.util.find_spec("datasets")
needs_library = pytest.mark.skipif(
    LIBRARY is None or LIBRARY.origin is None,
    reason="needs the library datasets: pip install 'datasets>=4'",
)
FRACTIONS = {"validation_fraction": 0.2, "test_fraction": 0.2}
COMMIT = "0" * 40
LABELLED = {"text": "text", "label": "label", "max_length": 16}
PIXELS = {"pixels": 8, "colour": True, "crop": "none", "unreadable": "stop"}


def faulty(call, *matches: str) -> None:
    with pytest.raises(JobError) as caught:
        call()
    assert caught.value.code == ExitCode.DATA and "\n" not in str(caught.value)
    for match in matches:
        assert match in str(caught.value)


def columns(start: int, end: int) -> dict[str, list]:
    numbers = range(start, end)
    return {"text": [f"зима {n}" for n in numbers], "label": [n % 3 for n in numbers]}


def table(start: int, end: int, labels: Any = None) -> Any:
    import datasets

    names = labels or datasets.ClassLabel(names=["b", "a", "c"])
    features = datasets.Features({"text": datasets.Value("string"), "label": names})
    return datasets.Dataset.from_dict(columns(start, end), features=features)


@pytest.fixture
def saved_folder(tmp_path: Path) -> Path:
    import datasets

    splits = {"train": table(0, 60), "dev": table(60, 72), "test": table(66, 90)}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


def texts(splits: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    found = {split: list(fields["text"]) for split, fields in splits.items()}
    assert all(len(fields["text"]) == len(found[split]) for split, fields in splits.items())
    assert {split: list(fields["text"]) for split, fields in splits.items()} == found
    everything = [text for part in found.values() for text in {*part}]
    assert len(everything) == len({*everything})
    return found


@needs_library
def test_published_splits_are_kept_except_for_repeated_examples(saved_folder: Path) -> None:
    splits, info = huggingface_text.prepare(
        path=saved_folder, train="train", validation="dev", test="test", **LABELLED
    )
    assert texts(splits) == {
        "train": columns(0, 60)["text"],
        "validation": columns(60, 66)["text"],
        "test": columns(66, 90)["text"],
    }
    assert info.class_names == ["a", "b", "c"] and info.left_out == {"repeated": 6}
    assert info.max_length == 16
    names = [info.class_names[label] for label in splits["test"]["label"]]
    assert names == ["bac"[label] for label in columns(66, 90)["label"]]


@needs_library
def test_splits_that_are_not_published_are_fractions_of_training(saved_folder: Path) -> None:
    splits, info = huggingface_text.prepare(
        path=saved_folder, train="train", **FRACTIONS, **LABELLED
    )
    texts(splits)
    assert info.examples == {"train": 36, "validation": 12, "test": 12}
    splits, _ = huggingface_text.prepare(
        path=saved_folder, train="train", validation_fraction=0.2, test="test", text="text"
    )
    assert {split: len(found) for split, found in texts(splits).items()} == {
        "train": 48, "validation": 12, "test": 24,
    }  # fmt: skip


@needs_library
@pytest.mark.parametrize("extension", ["parquet", "csv", "jsonl"])
def test_files_give_the_same_as_save_to_disk(extension: str, tmp_path: Path) -> None:
    import datasets

    rows = table(0, 60, labels=datasets.Value("string"))
    writers = {"parquet": rows.to_parquet, "csv": rows.to_csv, "jsonl": rows.to_json}
    writers[extension](str(tmp_path / f"a.{extension}"))
    rows.save_to_disk(str(tmp_path / "saved"))
    one, info = huggingface_text.prepare(
        path=tmp_path / f"a.{extension}", train="train", **FRACTIONS, **LABELLED
    )
    other, _ = huggingface_text.prepare(
        path=tmp_path / "saved", train="train", **FRACTIONS, **LABELLED
    )
    assert texts(one) == texts(other) and info.class_names == ["0", "1", "2"]
    assert all(np.array_equal(one[split]["label"], other[split]["label"]) for split in one)


@needs_library
def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    found = []
    for start in (0, 100):
        table(start, start + 50).to_parquet(str(path))
        splits, _ = huggingface_text.prepare(path=path, train="train", text="text", **FRACTIONS)
        found.append({text for part in texts(splits).values() for text in part})
    assert len(found[0]) == 50 and not found[0] & found[1]


@needs_library
def test_blank_rows_are_left_out(tmp_path: Path) -> None:
    import datasets

    rows = {"text": ["", None, " \n", *columns(0, 30)["text"]]}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path / "saved"))
    splits, info = huggingface_text.prepare(
        path=tmp_path / "saved", train="train", text="text", **FRACTIONS
    )
    assert sum(map(len, texts(splits).values())) == 30 and info.left_out["empty"] == 3


def png(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "png")
    return content.getvalue()


@needs_library
def test_images_are_read_as_they_were_stored(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    rows = {"image": [{"bytes": png(n), "path": None} for n in range(20)]}
    rows["label"] = [n % 2 for n in range(20)]
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "a.parquet"))
    splits, info = huggingface_image.prepare(
        path=tmp_path / "a.parquet",
        train="train",
        image="image",
        label="label",
        **FRACTIONS,
        **PIXELS,
    )
    assert info.examples == {"train": 12, "validation": 4, "test": 4}
    assert info.class_names == ["cat", "dog"]
    stored = {
        np.asarray(Image.open(io.BytesIO(png(n)))).transpose(2, 0, 1).tobytes(): n % 2
        for n in range(20)
    }
    found = {
        image.tobytes(): label
        for fields in splits.values()
        for image, label in zip(fields["image"], fields["label"].tolist(), strict=True)
    }
    assert found == stored
    faulty(
        lambda: huggingface_image.prepare(
            path=tmp_path / "a.parquet", train="train", image="label", label="label", **FRACTIONS,
            **PIXELS,
        ),
        "the column 'label' has no images",
    )  # fmt: skip


@needs_library
def test_wrong_settings_are_reported(saved_folder: Path, tmp_path: Path) -> None:
    good = {
        "path": saved_folder,
        "train": "train",
        "validation_fraction": 0.2,
        "test": "test",
        **LABELLED,
    }
    cases = {
        "its splits are 'train', 'dev', 'test'": {"train": "training"},
        "its columns are 'text', 'label'": {"text": "sentence"},
        "either validation": {"validation": "dev"},
        "or test_fraction": {"test": None},
        "one split is used twice": {"test": "train"},
        "belong together": {"label": None},
        "has int64, not text": {"text": "label", "label": "text"},
        "neither the output of save_to_disk": {"path": Path(__file__)},
    }
    for match, change in cases.items():
        faulty(lambda change=change: huggingface_text.prepare(**{**good, **change}), match)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    damaged = {**good, "path": tmp_path / "a.parquet", "test": None, "test_fraction": 0.2}
    faulty(lambda: huggingface_text.prepare(**damaged), "cannot be loaded")


@needs_library
def test_rows_without_a_label_are_reported(tmp_path: Path) -> None:
    import datasets

    features = table(0, 1).features
    rows = {"text": ["a", "b", None], "label": [0, -1, 1]}
    hidden = datasets.Dataset.from_dict(rows, features=features)
    hidden.save_to_disk(str(tmp_path / "saved"))
    faulty(
        lambda: huggingface_text.prepare(
            path=tmp_path / "saved", train="train", **FRACTIONS, **LABELLED
        ),
        "2 rows cannot be used", "train row 1: no label", "train row 2: no text",
    )  # fmt: skip


@needs_library
def test_a_hub_that_cannot_be_reached_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    faulty(
        lambda: huggingface_text.prepare(
            hub="nobody/nothing", revision=COMMIT, train="train", text="text", **FRACTIONS
        ),
        "nobody/nothing: cannot be loaded",
    )


def test_a_source_is_a_commit_of_the_hub_or_a_path() -> None:
    good = {"train": "train", "text": "text", **FRACTIONS}
    cases = [
        ("either hub", {}),
        ("either hub", {"hub": "a", "path": "b"}),
        ("must be a commit", {"hub": "a"}),
        ("must be a commit", {"hub": "a", "revision": "main"}),
        ("need hub", {"path": "b", "revision": COMMIT}),
    ]
    for match, change in cases:
        faulty(lambda change=change: huggingface_text.prepare(**good, **change), match)


def test_a_missing_library_is_reported_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    source = hub_datasets.Source("a", COMMIT, None, None)
    faulty(
        lambda: hub_datasets.load(source, {"train": "train"}, ["text"]),
        "pip install 'datasets>=4'",
    )
