"""`assay verify`: every hash is checked, and each number of a report derived again."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.checkout import Checkout
from support.workflows import only

from assay.commands import cli, verify
from assay.runs import records


@pytest.mark.slow
def test_verify_finds_a_number_a_file_and_a_record_that_were_changed(
    inside: Checkout, assay: Callable[..., str]
) -> None:
    assert "from the 15 runs; the hashes, files, weights and metrics of these are as" in assay(
        "verify"
    )
    table = inside.folder / "reports/digits/tables/summary.tex"
    honest = table.read_text()
    table.write_text(honest.replace(r"\%", r".1\%", 1))
    text = assay("verify", code=1)
    assert "reports/digits/tables/summary.tex: line" in text
    assert "the runs give" in text
    table.write_text(honest)
    predictions = only(inside, "evaluate/scratch_few/seed0-*") / "predictions.csv"
    content = predictions.read_text()
    predictions.write_text(content.replace(",0.", ",1.", 1))
    assert "predictions.csv is damaged or was edited" in assay("verify", code=1)
    predictions.write_text(content)
    shutil.rmtree(only(inside, "pretrain/self_supervised/seed0-*"))
    assert "pretrain/self_supervised/seed0-" in assay("verify", code=1)


@pytest.mark.slow
def test_a_deleted_page_is_reported_and_written_again(
    inside: Checkout, assay: Callable[..., str]
) -> None:
    (inside.folder / "reports/digits/index.html").unlink()
    assert "index.html: is missing; run snakemake" in assay("verify", code=1)
    inside.snakemake()
    assert "reports/digits: all" in assay("verify")


def rewrite(folder: Path, change: Callable[[Path, dict], object]) -> None:
    """Change a run's files and record, and give the record a matching checksum."""
    record = records.read(folder)
    del record["checksum"], record["files"]
    change(folder, record)
    records.write(folder, record)


def swap_labels(folder: Path, record: dict) -> None:
    """Predict every example correctly, by replacing the true labels with the predicted ones."""
    path = folder / "predictions.csv"
    header, *lines = path.read_text().splitlines()
    rows = [line.split(",") for line in lines]
    swapped = [
        ",".join([index, predicted, predicted, *rest]) for index, _, predicted, *rest in rows
    ]
    path.write_text("\n".join([header, *swapped]) + "\n")
    record["metrics"]["accuracy"] = 1.0


def flip_a_bit(folder: Path, _: dict) -> None:
    path = folder / "train.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("where", "change", "message"), (
    ("evaluate/scratch_few/seed0-*", swap_labels, "another label than the test examples"),
    ("evaluate/scratch_few/seed0-*",
     lambda folder, _: (folder / "predictions.csv").unlink(), "is missing"),
    ("prepare/digits/*", flip_a_bit, "it used other bytes of results/prepare/digits/"),
    ("finetune/scratch_few/seed1-*",
     lambda _, record: record["metrics"].update(validation_accuracy=0.99),
     "but 0.99 in its record"),
    ("finetune/scratch_few/seed1-*",
     lambda _, record: record.update(name="other"), "but its record says other"),
))  # fmt: skip
def test_changes_that_have_a_new_checksum_are_found(
    inside: Checkout, where: str, change: Callable, message: str
) -> None:
    rewrite(only(inside, where), change)
    plan = cli.read(inside.folder / "config.yaml")
    problems = [problem for run in plan.runs for problem in verify.check_run(run)]
    assert any(message in problem for problem in problems)


@pytest.mark.slow
def test_a_replay_gives_the_same_bytes(inside: Checkout, assay: Callable[..., str]) -> None:
    for target in ("prepare", "finetune/finetuned_few/seed1", "evaluate/frozen_few/seed0"):
        text = assay("verify", "--replay", target)
        assert "reports/digits: all" in text and ": replaying" in text


@pytest.mark.slow
def test_a_replay_reports_the_first_difference(inside: Checkout, assay: Callable[..., str]) -> None:
    def count_wrongly(folder: Path, _: dict) -> None:
        history = folder / "history.csv"
        history.write_text(history.read_text().replace("2,1,", "2,2,", 1))

    rewrite(only(inside, "finetune/scratch_few/seed0-*"), count_wrongly)
    text = assay("verify", "--replay", "finetune/scratch_few/seed0", code=1)
    assert "its replay differs: at step 2: validation 2 -> 1" in text
