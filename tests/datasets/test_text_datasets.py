"""Text data sets: no text in two splits, no dependence on order, and errors in one line."""

import csv
import hashlib
import io
import json
import os
import random
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from assay.data import downloads, labelled_texts
from assay.datasets import (
    python_functions,
    python_topics,
    text_classification,
    text_files,
    tinyshakespeare,
    wikitext2,
)
from assay.runs.errors import ExitCode, JobError
from assay.study import plugin_settings, signatures

SPLITS = ("train", "validation", "test")
NAMES = ("tinyshakespeare", "wikitext2", "python_topics", "python_functions", "text_files",
         "text_classification", "huggingface_text", "huggingface_image")  # fmt: skip
FRACTIONS = {"validation_fraction": 0.2, "test_fraction": 0.2}
COLUMNS = {"text": "text", "label": "label", "max_length": 32}
WORDS = [
    "été",
    "зима",
    "春天",
    "صيف",
    "👩‍👧",
    'say "hi"',
    "line\nbreak",
    "a,b",
    "tab\there",
    "\x00",
    "x",
]


def faulty(call, *matches: str) -> str:
    """Return the message with which a call fails: one line, for bad data."""
    with pytest.raises(JobError) as caught:
        call()
    text = str(caught.value)
    assert caught.value.code == ExitCode.DATA and "\n" not in text
    for match in matches:
        assert match in text
    return text


def documents(splits: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    assert tuple(splits) == SPLITS
    found = {split: list(fields["text"]) for split, fields in splits.items()}
    for split, fields in splits.items():
        assert list(fields["text"]) == found[split] and len(fields["text"]) == len(found[split])
    return found


def assert_apart(found: dict[str, list[str]]) -> None:
    for split, others in {"train": ("validation", "test"), "validation": ("test",)}.items():
        for other in others:
            assert found[split] and found[other] and not {*found[split]} & {*found[other]}


@pytest.mark.parametrize("name", NAMES)
def test_info_is_read_without_the_data(name: str) -> None:
    info = signatures.info(name)
    assert info.title and info.source and info.licence and info.split
    assert info.is_text != name.endswith("image")
    assert isinstance(plugin_settings.parameters("dataset", name), dict)


def test_the_test_split_of_tiny_shakespeare_is_the_validation_split_of_nanogpt() -> None:
    if not os.environ.get(downloads.DATA_FOLDER):
        pytest.skip(f"{downloads.DATA_FOLDER} is not a folder with tinyshakespeare/input.txt")
    found = documents(tinyshakespeare.prepare())
    (before, after), [between], [last] = (found[split] for split in SPLITS)
    whole = before + between + after + last
    assert hashlib.sha256(whole.encode()).hexdigest() == tinyshakespeare.INFO.sha256
    assert len(found["test"][0]) == 111_540 and len({*whole}) == 65
    assert {split: len(texts) for split, texts in found.items()} == {
        "train": 2, "validation": 1, "test": 1,
    }  # fmt: skip


ARTICLE = " = {title} = \n \n Words , and <unk> . \n \n = = Part = = \n \n More @-@ words . \n"
TITLES = ["Valkyria Chronicles III", "中文 , 2", "Part"]


def test_articles_begin_with_their_titles_and_joined_are_the_file() -> None:
    text = " \n" + " \n".join(ARTICLE.format(title=title) for title in TITLES)
    found = wikitext2.articles(text)
    assert "".join(found) == text and len(found) == 3
    for title, article in zip(TITLES, found, strict=True):
        assert f" = {title} = \n" in article and article.count(" = = Part = = ") == 1


def test_a_line_like_a_title_within_an_article_is_not_a_title() -> None:
    text = " \n = A = \n \n words \n = b = \n more \n"
    assert wikitext2.articles(text) == [text]


def test_wikitext_is_read_from_an_archive_like_the_official_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {split: f" \n{ARTICLE.format(title=split)}" * 3 for split in SPLITS}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("wikitext-2-raw")
        for split, name in wikitext2.MEMBERS.items():
            archive.writestr(name, texts[split])
    (tmp_path / "wikitext2").mkdir()
    (tmp_path / "wikitext2" / "wikitext-2-raw-v1.zip").write_bytes(content.getvalue())
    monkeypatch.setenv(downloads.DATA_FOLDER, str(tmp_path))
    faulty(wikitext2.prepare, "SHA-256")
    sha256 = hashlib.sha256(content.getvalue()).hexdigest()
    monkeypatch.setattr(wikitext2, "INFO", wikitext2.INFO | {"sha256": sha256})
    found = documents(wikitext2.prepare())
    assert {split: "".join(articles) for split, articles in found.items()} == texts
    assert {len(articles) for articles in found.values()} == {3}


def test_no_paragraph_of_the_help_topics_is_in_two_splits() -> None:
    splits, info = python_topics.prepare()
    found = documents(splits)
    assert_apart(found)
    owner: dict[str, str] = {}
    for split, texts in found.items():
        for paragraph in "\n\n".join(texts).split("\n\n"):
            if len(paragraph.strip()) >= python_topics.MIN_CHARACTERS:
                assert owner.setdefault(paragraph.strip(), split) == split
    sizes = {split: sum(map(len, texts)) for split, texts in found.items()}
    assert sizes["train"] > 5 * sizes["test"] and min(sizes.values()) > 10_000
    assert len(info.sha256) == 64 and info.python


def test_help_topics_do_not_depend_on_the_order_of_their_dictionary() -> None:
    from pydoc_data.topics import topics

    assert python_topics.split(dict(reversed(topics.items()))) == python_topics.split(topics)


def test_topics_with_a_common_paragraph_are_one_group_that_has_it_once() -> None:
    long = "this paragraph is long enough to tell of a common source"
    topics = {"a": f"one\n\n{long}", "b": f"{long}\n\ntwo", "c": f"three\n\n{long} c", "d": "four"}
    groups = python_topics._groups(topics)
    assert sorted(groups) == [["a", "b"], ["c"], ["d"]]
    assert python_topics._without_repeats([topics["a"], topics["b"]]) == [topics["a"], "two"]


def test_functions_of_the_standard_library_have_eight_classes_and_no_leaks() -> None:
    splits, info = python_functions.prepare(max_length=128)
    found = documents(splits)
    assert_apart(found)
    assert info.class_names == python_functions.INFO.class_names
    assert info.classes == 8 and info.max_length == 128
    assert sum(info.examples.values()) > 2_000 and info.labels_per_class > 100
    for fields in splits.values():
        assert fields["label"].dtype == np.int64 and {*fields["label"].tolist()} == {*range(8)}
    texts = {text for texts in found.values() for text in texts}
    assert all("def " in text and text == text.rstrip("\n") + "\n" for text in texts)
    again, info_again = python_functions.prepare(max_length=128)
    assert documents(again) == found and info_again == info


def test_a_nested_function_is_not_an_example(tmp_path: Path) -> None:
    inner = "def f():\n    def g():\n        a\n        b\n        c\n    return g\n"
    (tmp_path / "a.py").write_text(f"class A:\n    x = '\x0c'\n{_indented(inner)}")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "b.py").write_text(inner)
    assert list(python_functions._functions(tmp_path)) == [inner]


def _indented(text: str) -> str:
    return "".join(f"    {line}" for line in text.splitlines(keepends=True))


def write_files(folder: Path, texts: list[str]) -> Path:
    folder.mkdir()
    for number, text in enumerate(texts):
        (folder / f"{number:03}.txt").write_bytes(text.encode())
    return folder


@pytest.fixture
def many(tmp_path: Path) -> Path:
    texts = [f"file {number}\n" * (number % 7 + 1) for number in range(40)]
    return write_files(tmp_path / "many", texts)


def test_many_files_are_split_as_a_whole(many: Path) -> None:
    found = documents(text_files.prepare(files=many, **FRACTIONS))
    assert_apart(found)
    assert {split: len(texts) for split, texts in found.items()} == {
        "train": 24, "validation": 8, "test": 8,
    }  # fmt: skip
    in_order = list(text_files.Documents([(path, 0, None) for path in sorted(many.iterdir())]))
    assert found["train"] != in_order[:24]


def test_names_and_order_of_files_do_not_matter(many: Path, tmp_path: Path) -> None:
    before = documents(text_files.prepare(files=many, **FRACTIONS))
    texts = [path.read_text() for path in many.iterdir()]
    random.Random(0).shuffle(texts)
    other = write_files(tmp_path / "other", texts)
    after = documents(text_files.prepare(files=f"{other}/*.txt", **FRACTIONS))
    assert {split: sorted(found) for split, found in before.items()} == {
        split: sorted(found) for split, found in after.items()
    }


def test_equal_files_come_into_one_split(tmp_path: Path) -> None:
    texts = [f"text {number}" for number in range(30)] + [f"text {n}\r\n" for n in range(30)] * 2
    found = documents(text_files.prepare(files=write_files(tmp_path / "a", texts), **FRACTIONS))
    assert_apart(found)
    assert sum(map(len, found.values())) == 90


@given(
    st.lists(st.text("ab é中\n", min_size=50, max_size=300), min_size=1, max_size=4),
    st.floats(0.1, 0.4),
    st.floats(0.1, 0.4),
)
def test_few_files_are_divided_without_loss(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], validation: float, test: float
) -> None:
    assume(all(text.strip() for text in texts))
    folder = write_files(tmp_path_factory.mktemp("few") / "few", texts)
    splits = text_files.prepare(files=folder, validation_fraction=validation, test_fraction=test)
    found = documents(splits)
    assert [*map("".join, zip(*found.values(), strict=True))] == texts
    assert all(part for parts in found.values() for part in parts)


def test_one_file_is_divided_at_line_ends(tmp_path: Path) -> None:
    lines = [f"line {number}\n" for number in range(1000)]
    (tmp_path / "one.txt").write_text("".join(lines))
    found = documents(text_files.prepare(files=tmp_path / "one.txt", **FRACTIONS))
    assert all(texts[0].startswith("line") and texts[0][-1] == "\n" for texts in found.values())
    for split, fraction in {"train": 0.6, "validation": 0.2, "test": 0.2}.items():
        assert abs(len(found[split][0]) / len("".join(lines)) - fraction) < 0.01


def test_a_file_of_one_line_is_divided_within_it(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("a" * 100)
    found = documents(text_files.prepare(files=tmp_path / "one.txt", **FRACTIONS))
    assert [len(texts[0]) for texts in found.values()] == [60, 20, 20]


def test_byte_order_marks_are_removed_and_line_ends_normalised(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    assert text_files.read(tmp_path / "a.txt") == "a\nb\nc\n"


def test_files_at_any_depth_are_read_except_hidden_ones(many: Path) -> None:
    (many / "deep" / "er").mkdir(parents=True)
    (many / "deep" / "er" / "new.txt").write_text("new")
    (many / ".hidden").write_bytes(b"\0")
    found = documents(text_files.prepare(files=many, **FRACTIONS))
    assert sum(map(len, found.values())) == 41
    nothing = documents(text_files.prepare(files=f"{many}/**/*.txt", **FRACTIONS))
    assert sum(map(len, nothing.values())) == 41


def test_files_that_are_not_text_are_reported_at_once(many: Path) -> None:
    (many / "binary").write_bytes(b"a\0b")
    (many / "empty").write_bytes(b" \n")
    (many / "latin").write_bytes("é".encode("latin-1"))
    faulty(
        lambda: text_files.prepare(files=many, **FRACTIONS),
        "3 files are not text", "binary: it has NUL", "empty: empty", "not UTF-8: byte 0",
    )  # fmt: skip
    for number in range(20):
        (many / f"more{number}").write_bytes(b"\xff")
    text = faulty(lambda: text_files.prepare(files=many, **FRACTIONS), "and 13 more")
    assert text.count("byte 0") <= 10


def test_no_match_a_short_text_and_too_large_fractions_are_refused(tmp_path: Path) -> None:
    faulty(lambda: text_files.prepare(files=tmp_path / "*.txt", **FRACTIONS), "no file matches")
    (tmp_path / "a.txt").write_text("ab")
    faulty(lambda: text_files.prepare(files=tmp_path / "a.txt", **FRACTIONS), "2 characters")
    everything = {"validation_fraction": 0.5, "test_fraction": 0.5}
    faulty(lambda: text_files.prepare(files=tmp_path / "a.txt", **everything), "below 1")


def rows(count: int = 60) -> list[tuple[str, str]]:
    return [(f"{WORDS[n % len(WORDS)]} {n}", ("news", "спорт", "😀")[n % 3]) for n in range(count)]


def write_table(path: Path, found: list[tuple[Any, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        if path.suffix == ".jsonl":
            lines = (json.dumps({"text": text, "label": label}) for text, label in found)
            file.write("\n".join(lines))
        else:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerows([("text", "label"), *found])
    return path


def prepared(path: Path, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    return text_classification.prepare(file=path, **{**COLUMNS, **FRACTIONS, **options})


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_all_formats_of_tables_give_the_same(name: str, tmp_path: Path) -> None:
    splits, info = prepared(write_table(tmp_path / name, rows()))
    found = documents(splits)
    assert_apart(found)
    pairs = [
        (text, info.class_names[label])
        for fields in splits.values()
        for text, label in zip(fields["text"], fields["label"], strict=True)
    ]
    assert sorted(pairs) == sorted(rows())
    assert info.class_names == sorted(["news", "спорт", "😀"])
    assert info.examples == {"train": 36, "validation": 12, "test": 12}
    assert info.labels_per_class == 12 and info.max_length == 32
    for fields in splits.values():
        assert len({*Counter(fields["label"].tolist()).values()}) == 1


def test_a_table_in_another_order_gives_the_same_splits(tmp_path: Path) -> None:
    shuffled = random.Random(1).sample(rows(), 60)
    one = documents(prepared(write_table(tmp_path / "a.csv", rows()))[0])
    two = documents(prepared(write_table(tmp_path / "b.csv", shuffled))[0])
    assert {split: sorted(texts) for split, texts in one.items()} == {
        split: sorted(texts) for split, texts in two.items()
    }


@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 2), st.sampled_from([None, "test"])),
        max_size=200,
    ),
    st.randoms(use_true_random=False),
)
def test_equal_texts_are_in_one_split_whatever_their_labels(drawn: list, order: Any) -> None:
    drawn = drawn + [(1000 * label + n, label, None) for label in range(3) for n in range(1, 30)]
    drawn += [(99, label, "test") for label in range(3)]
    order.shuffle(drawn)
    examples = [labelled_texts.Example(f"t{text}", str(label), part) for text, label, part in drawn]
    splits, info = labelled_texts.collect(examples, {"validation": 0.2}, 8, "here")
    assert_apart(documents(splits))
    assert sum(info.examples.values()) + info.left_out["repeated"] == len(drawn)
    tested = {example.text for example in examples if example.split == "test"}
    assert {*splits["test"]["text"]} == tested


def test_repeated_and_contradicting_texts_are_counted(tmp_path: Path) -> None:
    extra = [("same", "news"), ("same", "спорт"), ("same", "😀"), ("twice", "news")] * 2
    splits, info = prepared(write_table(tmp_path / "a.csv", rows() + extra))
    assert info.contradictions == 1
    assert_apart(documents(splits))
    assert sum(info.examples.values()) == 68


def test_the_texts_of_a_test_table_are_left_out_of_training(tmp_path: Path) -> None:
    whole = write_table(tmp_path / "a.csv", rows())
    held_out = write_table(tmp_path / "b.jsonl", rows(9))
    splits, info = prepared(whole, test_fraction=None, test_file=held_out)
    assert_apart(documents(splits))
    assert documents(splits)["test"] == [text for text, _ in rows(9)]
    assert info.left_out == {"repeated": 9} and info.examples["test"] == 9
    faulty(lambda: prepared(whole, test_file=held_out), "either test_fraction", "or test_file")
    faulty(lambda: prepared(whole, test_fraction=None), "either test_fraction", "or test_file")


def test_numeric_labels_are_sorted_by_number_in_each_format(
    tmp_path: Path,
) -> None:
    numbered = [(f"text {n}", n % 11) for n in range(110)]
    for name in ("a.csv", "a.jsonl"):
        _, info = prepared(write_table(tmp_path / name, numbered))
        assert info.class_names == [str(n) for n in range(11)]
    _, info = prepared(write_table(tmp_path / "b.jsonl", [(f"t{n}", n > 20) for n in range(40)]))
    assert info.class_names == ["false", "true"]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_rows_without_text_or_label_are_reported_by_line(name: str, tmp_path: Path) -> None:
    bad = [("two\nlines", "news"), ("", "news"), ("a", ""), (" ", "news"), ("b", " ")]
    text = faulty(lambda: prepared(write_table(tmp_path / name, bad)), "4 rows cannot be used")
    first = 2 if name.endswith("jsonl") else 4
    assert all(f"line {first + number}: no " in text for number in range(4))


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ('{"text": "a", "label": null}', "line 1: no label"),
        ('{"text": 3, "label": "x"}', "line 1: the text is not a string"),
        ('{"text": "a", "label": 0.5}', "neither a text nor a whole number"),
        ('{"text": "\\ud800", "label": "x"}', "surrogate"),
        ('{"text": "a"}', "line 1 has no key 'label'"),
        ('["text"]', "line 1 is not a JSON object"),
        ('{"text": ', "line 1 is not JSON"),
        ("[" * 100_000, "line 1 is not JSON"),
        ("", "has no rows"),
    ],
)
def test_wrong_json_lines_are_reported(line: str, match: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(line)
    faulty(lambda: prepared(tmp_path / "a.jsonl"), match)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"text;label\na;b\n", "its columns are 'text;label'"),
        (b"text,text,label\na,b,c\n", "several columns named 'text'"),
        (b"text,label\na,b,c\n", "line 2 has 3 fields"),
        (b'text,label\n"a" b,c\n', "line 2 cannot be read"),
        (b'text,label\n"a,c\n', "cannot be read"),
        ("text,label\né,b\n".encode("latin-1"), "is not text in UTF-8"),
        ("text,label\na,b\n".encode("utf-16"), "is not text in UTF-8"),
        (b"text,label\n", "has no rows"),
        (b"", "is empty: its first line"),
        (b"\n", "no column named 'text'"),
        (b"text,label\na,x\nb,x\n", "all texts have one label, x"),
    ],
)
def test_wrong_tables_are_reported(content: bytes, match: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    faulty(lambda: prepared(tmp_path / "a.csv"), match)


def test_a_byte_order_mark_and_a_very_long_text_are_read(tmp_path: Path) -> None:
    found = [("long " * 100_000 + str(n), label) for n, (_, label) in enumerate(rows(9))]
    path = write_table(tmp_path / "a.csv", found)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert prepared(path)[1].examples == {"train": 3, "validation": 3, "test": 3}


def test_other_formats_and_missing_files_are_refused(tmp_path: Path) -> None:
    faulty(lambda: prepared(tmp_path / "a.csv"), "there is no such file")
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    faulty(lambda: prepared(tmp_path / "a.xlsx"), "one of .csv, .tsv, .jsonl, .ndjson")


def test_a_class_with_too_few_texts_is_reported(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.csv", [*rows(), ("a", "rare"), ("b", "rare")])
    faulty(lambda: prepared(path), "classes have too few different texts", "rare: none in train")
