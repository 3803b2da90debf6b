"""Whole studies of texts: own files, two corpora, generated text, and texts with labels."""

import csv
import json
import random
from pathlib import Path

import pytest
from support.checkout import Checkout, once, tiny_study

from assay.commands import store

pytestmark = pytest.mark.slow
WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "that", "no", "dog", "there"]
SCRIPTS = {"sea": "海 水 魚 船 波", "land": "жук лес дом поле", "sky": "🌙 ☀️ 🌧 ⭐ مطر"}
GPT = {
    "name": "gpt", "layers": 1, "heads": 2, "width": 8, "context_length": 16, "positions": "rotary",
    "dropout": 0.0, "tie_embeddings": True,
}  # fmt: skip
TRAINING = {
    "steps": 4, "validate_every_steps": 2, "warmup_steps": 1, "batch_size": 8, "weight_decay": 0.1,
}  # fmt: skip


def corpus(folder: Path, seed: int) -> None:
    """A dozen files of random sentences."""
    draw = random.Random(seed)
    folder.mkdir(parents=True)
    for number in range(12):
        words = draw.choices(WORDS, k=120)
        (folder / f"{number}.txt").write_text(" ".join(words) + ".\n")


def labelled(path: Path) -> None:
    """A table of texts in three scripts."""
    draw = random.Random(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["what", "said"])
        for number in range(90):
            name = sorted(SCRIPTS)[number % 3]
            words = draw.choices(SCRIPTS[name].split(), k=6)
            writer.writerow([name, f'{number} "{" ".join(words)}",\n{name[0]}'])


def study() -> dict:
    """From a corpus to another one, and to a table with labels."""
    files = {"validation_fraction": 0.2, "test_fraction": 0.2}
    table = {
        "name": "text_classification", "file": "said.csv", "text": "said", "label": "what",
        "max_length": 12, **files,
    }  # fmt: skip
    found = tiny_study() | {"study": "texts", "seeds": [0], "model": GPT}
    found["prepare"] = {
        "dataset": {"name": "text_files", "files": "near/*.txt", **files},
        "tokenizer": {"name": "characters"},
        "additional": {
            "broad": {
                "dataset": {"name": "text_files", "files": "broad", **files},
                "tokenizer": {"name": "bpe", "vocab_size": 270},
            },
            "table": {"dataset": table, "tokenizer": {"from": "broad"}},
        },
    }
    found["pretrain"] = {
        "broadly": {
            "data": "broad", "objective": {"name": "next_token"}, "learning_rate": 0.01, **TRAINING,
        }
    }  # fmt: skip
    found["finetune"] = {
        "objective": {"name": "next_token"}, "labels_per_class": "all", "frozen": [],
        "learning_rate": {"backbone": 0.01, "head": 0.01}, **TRAINING,
    }  # fmt: skip
    found["experiments"] = {
        "scratch": {"pretraining": "none"},
        "tuned": {"pretraining": "broadly"},
        "low_rank": {"pretraining": "broadly", "lora": {"rank": 2, "alpha": 4}},
    }
    asked = {"prompts": ["the cat"], "tokens": 12, "temperature": 1.0, "top_k": 5}
    found["evaluate"] = {"batch_size": 64, "generate": asked}
    found["report"] |= {
        "metric": "bits_per_byte", "target": 9.0, "comparisons": {"tuned": ["scratch"]},
    }  # fmt: skip
    return found


def of_labels() -> dict:
    """The same texts, to tell which class a text of the table is of."""
    found = study()
    found["study"] = "labels"
    del found["evaluate"]["generate"]
    found["finetune"] |= {
        "data": "table",
        "objective": {"name": "classification", "label_smoothing": 0.0, "augmentation": 0.0},
        "labels_per_class": 5,
    }
    found["experiments"]["head"] = {"pretraining": "broadly", "frozen": ["backbone"]}
    found["report"] |= {"metric": "accuracy", "target": 0.9}
    return found


def filled(checkout: Checkout) -> Checkout:
    corpus(checkout.folder / "near", 1)
    corpus(checkout.folder / "broad", 2)
    labelled(checkout.folder / "said.csv")
    return checkout


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The study of both corpora, run to its end, and then the one of labels. Not to be changed."""
    made = once(tmp_path_factory, "texts", study(), filled)
    return made


def record(checkout: Checkout, run: str) -> dict:
    path = checkout.folder / "results/current/texts" / run / "record.json"
    return json.loads(path.read_text())


def test_a_language_model_is_reported_in_bits_per_byte_with_what_it_says(
    written: Checkout,
) -> None:
    folder = written.folder / "reports/texts"
    rows = list(csv.DictReader((folder / "summary.csv").open()))
    assert [row["experiment"] for row in rows] == ["scratch", "low_rank", "tuned"]
    assert all(0 < float(row["bits_per_byte_mean"]) < 9 for row in rows)
    page = (folder / "index.html").read_text()
    assert "Generated texts" in page and "<b>the cat</b>" in page
    said = written.folder / "results/current/texts/evaluate/tuned/seed0/generated.json"
    [answer] = json.loads(said.read_text())
    assert answer["prompt"] == "the cat" and answer["text"]


def test_a_vocabulary_is_that_of_the_training_texts_or_the_one_that_is_lent(
    written: Checkout,
) -> None:
    info = record(written, "finetune/scratch/seed0")
    prepared = {
        path.parent.name: json.loads(path.read_text())
        for path in written.folder.glob("results/prepare/*/*/record.json")
    }
    sizes = sorted(found["info"]["vocab_size"] for found in prepared.values())
    assert sizes[-1] == 270 and sizes[0] < 30
    assert info["parents"].keys() == {"data"}
    assert record(written, "finetune/tuned/seed0")["parents"].keys() == {
        "data", "weights", "pretraining_data",
    }  # fmt: skip


def test_each_of_several_data_sets_of_one_kind_has_a_link_that_one_may_type(
    written: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    links = sorted((written.folder / "results/current/texts/prepare").iterdir())
    runs = sorted((written.folder / "results/prepare/text_files").iterdir())
    assert sorted(link.resolve() for link in links) == runs
    written.snakemake(str(links[0].relative_to(written.folder)), "-n")
    monkeypatch.chdir(written.folder)
    assert all(held.studies == ("texts",) for held in store.inventory([], {}))


def test_low_ranks_train_few_parameters_and_the_report_says_how_many(written: Checkout) -> None:
    tuned = record(written, "finetune/low_rank/seed0")["metrics"]
    assert tuned["trained_parameters"] < tuned["parameters"] / 2
    assert (
        f"({tuned['trained_parameters']:,} trained)"
        in (written.folder / "reports/texts/index.html").read_text()
    )


def test_numbers_of_a_study_of_texts_can_be_derived_again(written: Checkout) -> None:
    done = written.run("python", "-m", "assay", "verify")
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_edited_text_is_prepared_again_with_what_was_made_from_it_alone(
    written: Checkout, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(written.folder, tmp_path / "copy", symlinks=True)
    copy = Checkout(tmp_path / "copy")
    assert copy.planned() == {}
    (copy.folder / "near/3.txt").write_text("a dog sat there\n" * 9)
    assert copy.planned() == {"prepare": 1, "finetune": 3, "evaluate": 3, "report": 1}


def test_texts_in_several_scripts_are_classified_from_a_pretraining(
    written: Checkout, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(written.folder, tmp_path / "copy", symlinks=True)
    copy = Checkout(tmp_path / "copy")
    copy.write_study(of_labels())
    planned = copy.planned()
    assert "pretrain" not in planned and planned["prepare"] == 1
    copy.snakemake()
    rows = list(csv.DictReader((copy.folder / "reports/labels/summary.csv").open()))
    assert {row["experiment"] for row in rows} == {"scratch", "tuned", "low_rank", "head"}
    assert all(0 <= float(row["accuracy_mean"]) <= 1 for row in rows)
    info = next(copy.folder.glob("results/prepare/text_classification/*/record.json"))
    assert json.loads(info.read_text())["info"]["class_names"] == ["land", "sea", "sky"]
