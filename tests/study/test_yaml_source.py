"""A file that is not a study in YAML is refused in one report."""

from itertools import pairwise
from pathlib import Path

import pytest
from support.studies import refusal

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


@pytest.mark.parametrize("case", TEXTS)
def test_a_file_that_is_not_a_study_is_refused_in_one_report(case: str, tmp_path: Path) -> None:
    text, expected = TEXTS[case]
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    found = refusal(path)
    assert expected in found
    assert all(str(path) in line for line in found.splitlines()[1:])


def test_a_missing_file_and_a_file_that_is_not_text_are_refused(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "nowhere.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in refusal(tmp_path / "binary.yaml")
    assert "cannot be read" in refusal(tmp_path)
