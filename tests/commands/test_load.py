"""`assay.load`: the results of a study as a tidy DataFrame."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.checkout import PROJECT, Checkout
from support.workflows import only

import assay


def test_importing_the_package_imports_no_pandas() -> None:
    code = "import sys, assay; sys.exit('pandas' in sys.modules)"
    environment = {"PYTHONPATH": str(PROJECT / "src")}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 0


def test_a_study_has_a_row_per_experiment_and_seed(inside: Checkout) -> None:
    results = assay.load("digits")
    assert len(results) == 6 and not results.duplicated(["experiment", "seed"]).any()
    assert set(results["status"]) == {"complete"}
    for row in results.to_dict("records"):
        folder = only(inside, f"evaluate/{row['experiment']}/seed{row['seed']}-*")
        record = json.loads((folder / "record.json").read_text())
        assert row["accuracy"] == record["metrics"]["accuracy"]
        assert row["hash"] == record["digest"]
        assert row["training_seconds"] > 0 and row["device"]
    frozen = results[results["experiment"] == "frozen_few"]
    assert set(frozen["frozen"]) == {"backbone"}
    assert set(frozen["pretraining"]) == {"self_supervised"}
    assert set(frozen["learning_rate.head"]) == {0.01}
    assert "batch_size" not in results  # equal in all experiments
    assert set(results.groupby("experiment")["accuracy"].mean().index) == set(results["experiment"])


def test_a_file_and_a_report_give_the_same_from_any_folder(
    inside: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = assay.load("digits")
    monkeypatch.chdir(tmp_path)
    for path in ("config.yaml", "reports/digits"):
        assert assay.load(inside.folder / path).equals(expected)


def test_the_records_count_and_not_the_report(inside: Checkout) -> None:
    run = only(inside, "evaluate/scratch_few/seed0-*")
    (run / "record.json").unlink()
    results = assay.load("reports/digits")
    [missing] = results[results["status"] == "missing"].to_dict("records")
    assert (missing["experiment"], missing["seed"]) == ("scratch_few", 0)
    assert missing["reason"] == "evaluate not run yet"
    assert results["accuracy"].isna().sum() == 1


def test_runs_of_another_device_are_found(inside: Checkout) -> None:
    inside.edit("config.yaml", "device: cpu", "device: gpu")
    # There is no GPU here, so a study that asks for one cannot be read; its report can.
    record = inside.folder / "reports/digits/record.json"
    assert record.exists()
    assert set(assay.load("reports/digits")["status"]) == {"complete"}


@pytest.mark.parametrize("name", ("digts", "reports/digts", "digts.yaml"))
def test_an_unknown_study_suggests_the_right_one(inside: Checkout, name: str) -> None:
    with pytest.raises(ValueError, match=r"no study file, report folder or name .*digits\?"):
        assay.load(name)


def test_a_broken_study_is_a_clear_error(inside: Checkout) -> None:
    inside.edit("config.yaml", "batch_size: 50", "batch_size: many")
    with pytest.raises(ValueError, match="batch_size"):
        assay.load("config.yaml")
