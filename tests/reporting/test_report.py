"""The numbers of a report equal those of the records, wherever they appear."""

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.checkout import Checkout

from assay import report
from assay.reporting import formatting, latex, statistics
from assay.runs import identity, records, units
from assay.study import loading
from assay.study.plan import Plan
from assay.study.schema import Study


@pytest.fixture
def write(
    finished: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Plan], Path]:
    """Write the report of a plan in the finished study's folder; `write(plan)` returns where."""
    monkeypatch.chdir(finished.folder)

    def written(plan: Plan) -> Path:
        report.write(plan, tmp_path / "report", None, partial=True)
        return tmp_path / "report"

    return written


def plan_of(checkout: Checkout, **changes: object) -> Plan:
    """The plan of a checkout's study as the workflow passes it to the report, with changes."""
    study = loading.read(checkout.folder / "config.yaml", changes)
    return Plan(Study.from_dict(json.loads(identity.canonical(study.to_dict()))))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def recomputed(checkout: Checkout) -> dict[str, dict[int, dict[str, float]]]:
    """Accuracy from the predictions and seconds from the ledgers, by experiment and seed."""
    values: dict[str, dict[int, dict[str, float]]] = {}
    for path in (checkout.folder / "results/evaluate").glob("*/*/record.json"):
        record = json.loads(path.read_text())
        rows = read(path.parent / "predictions.csv")
        right = sum(row["label"] == row["predicted"] for row in rows) / len(rows)
        trained = json.loads(
            (checkout.folder / record["parents"]["weights"]["folder"] / "record.json").read_text()
        )
        seconds = trained["seconds"]["train"] + trained["seconds"]["data_wait"]
        if "weights" in trained["parents"]:
            start = checkout.folder / trained["parents"]["weights"]["folder"] / "record.json"
            start_seconds = json.loads(start.read_text())["seconds"]
            seconds += start_seconds["train"] + start_seconds["data_wait"]
        result = {"accuracy": right, "training_seconds": seconds}
        values.setdefault(record["name"], {})[record["seed"]] = result
    return values


def test_results_and_summary_agree_with_the_runs(finished: Checkout) -> None:
    truth, folder = recomputed(finished), finished.folder / "reports/digits"
    for row in read(folder / "results.csv"):
        values = truth[row["experiment"]][int(row["seed"])]
        assert float(row["accuracy"]) == pytest.approx(values["accuracy"])
        assert float(row["training_seconds"]) == pytest.approx(values["training_seconds"])
    for row in read(folder / "summary.csv"):
        seeds = truth[row["experiment"]].values()
        assert float(row["accuracy_mean"]) == pytest.approx(np.mean([s["accuracy"] for s in seeds]))
        mean = np.mean([seed["training_seconds"] for seed in seeds])
        assert float(row["training_seconds_mean"]) == pytest.approx(mean)
        assert int(row["n"]) == 2


def test_comparisons_are_differences_paired_by_seed(finished: Checkout) -> None:
    truth = recomputed(finished)
    rows = read(finished.folder / "reports/digits/comparisons.csv")
    assert len(rows) == 2
    for row in rows:
        ours, theirs = (truth[row[name]] for name in ("experiment", "baseline"))
        differences = [ours[seed]["accuracy"] - theirs[seed]["accuracy"] for seed in (0, 1)]
        assert float(row["difference_mean"]) == pytest.approx(np.mean(differences))


def test_page_latex_and_numbers_show_the_same(finished: Checkout) -> None:
    folder = finished.folder / "reports/digits"
    page = (folder / "index.html").read_text()
    table = (folder / "tables/summary.tex").read_text()
    numbers = (folder / "numbers.tex").read_text()
    for row in read(folder / "summary.csv"):
        limits = [float(row[f"accuracy_{part}"]) for part in ("mean", "low", "high")]
        mean, _, _ = shown = [formatting.score("accuracy", number) for number in limits]
        limits = f"({shown[1].rstrip('%')} to {shown[2].rstrip('%')})"
        assert f'<span>{mean} <span class="note">{limits}</span></span>' in page
        assert latex.escape(f"{mean} {limits}") in table
        command = latex.command(f"{row['experiment']}_accuracy_mean")
        assert f"\\{command}}}{{{latex.escape(mean)}}}" in numbers
        memory = latex.command(f"{row['experiment']}_peak_memory_bytes")
        text = units.size(float(row["peak_memory_bytes"]))
        assert f"\\{memory}}}{{{text}}}" in numbers and f"<span>{text}</span>" in page


def test_every_number_names_runs_that_exist(finished: Checkout) -> None:
    numbers = json.loads((finished.folder / "reports/digits/provenance.json").read_text())
    assert len({number["command"] for number in numbers}) == len(numbers) > 10
    for number in numbers:
        assert number["runs"]
        assert all((finished.folder / run / "record.json").exists() for run in number["runs"])


@given(st.text())
def test_latex_commands_are_letters_and_text_is_escaped(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z]*", latex.command(text))
    assert not re.search(r"(?<!\\)[%&#_$]", latex.escape(text).replace("$-$", ""))


def test_the_page_needs_nothing_from_outside(finished: Checkout) -> None:
    page = (finished.folder / "reports/digits/index.html").read_text()
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page.replace("xlink:href", ""))
    assert "<script" not in page
    assert page.count("<svg") == 3


def test_the_page_names_the_metric_of_the_target(finished: Checkout) -> None:
    page = (finished.folder / "reports/digits/index.html").read_text()
    assert "until the first validation whose validation accuracy reaches 0.1." in page


def test_the_cost_is_that_of_the_seconds_on_cores(
    finished: Checkout, write: Callable[[Plan], Path]
) -> None:
    cost = {"per_hour": 36.0, "currency": "EUR"}
    folder = write(plan_of(finished, report={"cost": cost}))
    [row] = [row for row in read(folder / "summary.csv") if row["experiment"] == "scratch_few"]
    folders = (finished.folder / "results/current/digits/finetune/scratch_few").glob(
        "*/record.json"
    )
    ledgers = [json.loads(path.read_text())["seconds"] for path in folders]
    seconds = [each["wall"] - each["wait"] for each in ledgers]
    assert float(row["cost_mean"]) == pytest.approx(0.01 * np.mean(seconds))
    assert " EUR</span>" in (folder / "index.html").read_text()


def test_another_clock_rule_changes_the_report_alone(
    finished: Checkout, write: Callable[[Plan], Path]
) -> None:
    before, after = (plan_of(finished, report={"clock": rule}) for rule in ("steps", "mlperf"))
    assert after.digest != before.digest
    assert [run.folder for run in after.runs] == [run.folder for run in before.runs]
    folder = write(after)
    counted = ("data", "train", "data_wait", "validate", "checkpoint", "other", "wasted")
    for row in read(folder / "results.csv"):
        ledgers = [
            json.loads((finished.folder / row[name] / "record.json").read_text())["seconds"]
            for name in ("pretrain_folder", "finetune_folder")
            if row[name]
        ]
        expected = sum(ledger[phase] for ledger in ledgers for phase in counted)
        assert float(row["training_seconds"]) == pytest.approx(expected)
        to_target = float(row["seconds_to_target"])
        assert to_target <= expected or to_target == float("inf")
    assert "MLPerf" in (folder / "index.html").read_text().partition("</table>")[0]


def test_a_missing_seed_is_left_out_and_the_page_says_so(
    finished: Checkout, write: Callable[[Plan], Path]
) -> None:
    new = {"pretraining": "none", "labels_per_class": 6}
    folder = write(plan_of(finished, seeds=[0, 1, 2], experiments={"new": new}))
    rows = {row["experiment"]: row for row in read(folder / "summary.csv")}
    accuracy = [values["accuracy"] for values in recomputed(finished)["scratch_few"].values()]
    assert float(rows["scratch_few"]["accuracy_low"]) == statistics.mean(accuracy, 0, 1).low
    assert (rows["scratch_few"]["n"], rows["new"]["n"]) == ("2", "0")
    page = (folder / "index.html").read_text()
    assert "6 of 12 results are missing" in page and "<span>2 of 3</span>" in page
    assert "<span>finetune not run yet</span>" in page


def test_a_study_without_question_target_and_comparisons_has_a_report(
    finished: Checkout, write: Callable[[Plan], Path]
) -> None:
    study = plan_of(finished).study
    plain = replace(study.report, target=None, comparisons={})
    folder = write(Plan(replace(study, question=None, report=plain)))
    assert "seconds_to_target_median" not in read(folder / "summary.csv")[0]
    page = (folder / "index.html").read_text()
    assert "<h1>digits</h1>" in page and "Time to target" not in page
    assert "The study names no comparison" in page and "None" not in page


def test_a_metric_with_the_name_of_a_column_replaces_nothing(
    copy: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy.folder)
    for path in Path("results/evaluate").glob("*/*/record.json"):
        record = records.read(path.parent)
        record["metrics"] |= {"labels": 7.0, "device": 8.0}
        kept = {name: record[name] for name in record if name not in ("checksum", "files")}
        records.write(path.parent, kept)
    report.write(plan_of(copy), tmp_path / "report", None, partial=True)
    before = read(copy.folder / "reports/digits/results.csv")
    after = read(tmp_path / "report/results.csv")
    assert [{name: row[name] for name in before[0]} for row in after] == before
    assert all((row["metric_labels"], row["metric_device"]) == ("7.0", "8.0") for row in after)
    jobs = [row for row in read(tmp_path / "report/runs.csv") if row["stage"] == "evaluate"]
    assert all((row["labels"], row["metric_device"]) == ("7.0", "8.0") for row in jobs)
    assert all("thread" in row["device"] for row in jobs)


def test_every_ledger_sums_to_its_wall_time(finished: Checkout) -> None:
    for path in (finished.folder / "results").glob("[!c]*/*/*/record.json"):
        seconds = json.loads(path.read_text())["seconds"]
        wall = seconds.pop("wall")
        assert sum(seconds.values()) == pytest.approx(wall, rel=0.001)
        rows = (path.parent / "benchmark.tsv").read_text().splitlines()
        outside = float(rows[1].split("\t")[0])
        assert wall <= outside + 0.05
