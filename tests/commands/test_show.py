"""`assay show`: the completed study, and its runs."""

from collections.abc import Callable

from support.checkout import Checkout


def test_the_shown_study_gives_the_same_runs(
    inside: Checkout, assay: Callable[..., str], as_json: Callable
) -> None:
    before = as_json("show", "--runs")
    shown = as_json("show")
    assert shown["experiments"]["frozen_few"]["batch_size"] == 50  # of finetune
    assert "experiments: scratch_few: " in assay("show")
    inside.write_study(shown)
    assert as_json("show", "--runs") == before
    assert as_json("plan")["runs"] == []


def test_runs_are_listed_with_hashes(inside: Checkout, assay: Callable, as_json: Callable) -> None:
    runs, text = as_json("show", "--runs"), assay("show", "--runs")
    assert len(runs) == 15 and all(run["complete"] for run in runs)
    for run in runs:
        assert (inside.folder / run["folder"] / "record.json").exists()
        assert f"{run['run']} {run['hash']} complete" in text
