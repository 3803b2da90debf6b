"""`assay convert`: an older study is upgraded, and the original is safe."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.checkout import PROJECT, Checkout

OLD = PROJECT / "tests/study/schema_1/config.yaml"


@pytest.fixture
def old(inside: Checkout) -> Path:
    """A copy of the default study as it was written for schema 1."""
    path = inside.folder / "old.yaml"
    path.write_text(OLD.read_text())
    return path


def test_an_old_study_names_the_command_that_upgrades_it(
    old: Path, assay: Callable[..., str]
) -> None:
    assert "assay convert" in assay("plan", "--study", "old.yaml", code=1)


def test_the_result_is_printed_or_written_and_the_original_stays(
    old: Path, assay: Callable[..., str], as_json: Callable
) -> None:
    before = old.read_text()
    answer = as_json("convert", "old.yaml")
    assert answer["changes"] and "schema: 2" in answer["text"]
    printed = assay("convert", "old.yaml")
    assert " ".join(answer["text"].split()) in printed
    assert all(" ".join(change.split()) in printed for change in answer["changes"])
    assert "old.yaml -> new.yaml" in assay("convert", "old.yaml", "--output", "new.yaml")
    assert old.read_text() == before
    assert Path("new.yaml").read_text().split() == answer["text"].split()
    assert "75 runs" in assay("plan", "--study", "new.yaml")
    assert "nothing to convert" in assay("convert", "new.yaml")


def test_a_file_is_overwritten_only_in_place(old: Path, assay: Callable[..., str]) -> None:
    before = old.read_text()
    assert "old.yaml exists: name another --output, or use --in-place" in assay(
        "convert", "old.yaml", "--output", "old.yaml", code=1
    )
    assert "exclude each other" in assay(
        "convert", "old.yaml", "--in-place", "--output", "new.yaml", code=1
    )
    assert old.read_text() == before
    assay("convert", "--study", "old.yaml", "--in-place")
    assert "schema: 2" in old.read_text()
    assert "75 runs" in assay("plan", "--study", "old.yaml")


@pytest.mark.parametrize("content", (b"a: [", b"\xff", b"- 1\n", b""))
def test_a_file_that_is_no_study_is_an_error(
    inside: Checkout, assay: Callable[..., str], content: bytes
) -> None:
    Path("broken.yaml").write_bytes(content)
    assert "broken.yaml" in assay("convert", "broken.yaml", code=1)
