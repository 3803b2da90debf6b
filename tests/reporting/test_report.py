"""The numbers of a report are those of the records, the same wherever they stand."""

import csv
import json
import math
import re
import statistics as standard
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from support.checkout import Checkout

from assay import report
from assay.reporting import costs, formatting, latex, statistics

floats = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9)


@given(floats)
def test_the_interval_is_scipys(values: list[float]) -> None:
    found = statistics.mean(values)
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values) or 1e-99)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-6)
    assert found.low == pytest.approx(low, rel=1e-6, abs=1e-4)
    assert found.high == pytest.approx(high, rel=1e-6, abs=1e-4)


def test_one_seed_has_no_interval_and_no_seed_no_mean() -> None:
    assert math.isnan(statistics.mean([0.5]).low)
    assert math.isnan(statistics.mean([]).mean)


@given(st.lists(st.floats(0, 9) | st.just(math.inf), min_size=1))
def test_a_miss_counts_as_infinite_in_the_median(values: list[float]) -> None:
    assert statistics.median_with_misses(values) == pytest.approx(standard.median(values))


@given(st.text())
def test_latex_commands_are_letters_and_text_is_escaped(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z]*", latex.command(text))
    assert not re.search(r"(?<!\\)[%&#_$]", latex.escape(text).replace("$-$", ""))


def test_control_characters_of_a_text_do_not_come_into_the_page() -> None:
    assert report._visible("a\0\x1b\r\n\tb\x7f\x85é") == "a␀␛␍\n\tb␡\ufffdé"


def read(checkout: Checkout, name: str) -> list[dict[str, str]]:
    with (checkout.folder / "reports/digits" / name).open(newline="") as file:
        return list(csv.DictReader(file))


def recomputed(checkout: Checkout) -> dict[str, dict[int, dict[str, float]]]:
    """Accuracy from the predictions and seconds from the ledgers, by experiment and seed."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for path in (checkout.folder / "results/evaluate").glob("*/*/record.json"):
        record = json.loads(path.read_text())
        with (path.parent / "predictions.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        right = sum(row["label"] == row["predicted"] for row in rows) / len(rows)
        trained = json.loads(
            (checkout.folder / record["parents"]["weights"]["folder"] / "record.json").read_text()
        )
        seconds = trained["seconds"]["train"] + trained["seconds"]["data_wait"]
        if "weights" in trained["parents"]:
            start = checkout.folder / trained["parents"]["weights"]["folder"] / "record.json"
            start_seconds = json.loads(start.read_text())["seconds"]
            seconds += start_seconds["train"] + start_seconds["data_wait"]
        values = {"accuracy": right, "training_seconds": seconds}
        found.setdefault(record["name"], {})[record["seed"]] = values
    return found


def test_results_and_summary_agree_with_the_runs(finished: Checkout) -> None:
    truth = recomputed(finished)
    for row in read(finished, "results.csv"):
        values = truth[row["experiment"]][int(row["seed"])]
        assert float(row["accuracy"]) == pytest.approx(values["accuracy"])
        assert float(row["training_seconds"]) == pytest.approx(values["training_seconds"])
    for row in read(finished, "summary.csv"):
        seeds = truth[row["experiment"]].values()
        assert float(row["accuracy_mean"]) == pytest.approx(np.mean([s["accuracy"] for s in seeds]))
        mean = np.mean([seed["training_seconds"] for seed in seeds])
        assert float(row["training_seconds_mean"]) == pytest.approx(mean)
        assert int(row["n"]) == 2


def test_page_latex_and_numbers_show_the_same(finished: Checkout) -> None:
    report = finished.folder / "reports/digits"
    page = (report / "index.html").read_text()
    table = (report / "tables/summary.tex").read_text()
    numbers = (report / "numbers.tex").read_text()
    for row in read(finished, "summary.csv"):
        limits = [float(row[f"accuracy_{part}"]) for part in ("mean", "low", "high")]
        shown = formatting.with_interval("accuracy", *limits)
        assert shown in page
        assert latex.escape(shown) in table
        command = latex.command(f"{row['experiment']}_accuracy_mean")
        assert (
            f"\\{command}}}{{{latex.escape(formatting.value('accuracy', limits[0]))}}}" in numbers
        )


def test_the_cost_is_that_of_the_seconds_on_cores(copy: Checkout) -> None:
    copy.edit("config.yaml", "report:", "report:\n  cost: {per_hour: 36.0, currency: EUR}")
    assert copy.planned() == {"report": 1}
    copy.snakemake()
    [row] = [row for row in read(copy, "summary.csv") if row["experiment"] == "scratch_few"]
    folders = (copy.folder / "results/current/digits/finetune/scratch_few").glob("*/record.json")
    spent = [json.loads(path.read_text())["seconds"] for path in folders]
    seconds = [each["wall"] - each["wait"] for each in spent]
    assert float(row["cost_mean"]) == pytest.approx(0.01 * np.mean(seconds))
    assert " EUR</span>" in (copy.folder / "reports/digits/index.html").read_text()


def test_the_page_tells_what_the_target_is_of(finished: Checkout) -> None:
    page = (finished.folder / "reports/digits/index.html").read_text()
    assert "until the first validation whose validation accuracy reaches 0.1." in page


def test_data_that_experiments_learn_from_come_first_whichever_they_are() -> None:
    prepared = {name: {"stage": "prepare", "info": {"title": name}} for name in ("one", "two")}
    trained = {"stage": "finetune", "parents": {"data": {"folder": "two"}}}
    found = SimpleNamespace(records={**prepared, "three": trained})
    assert report._data(found) == ([{"title": "two"}], [{"title": "one"}])


def test_every_number_names_runs_that_exist(finished: Checkout) -> None:
    numbers = json.loads((finished.folder / "reports/digits/provenance.json").read_text())
    assert len({number["command"] for number in numbers}) == len(numbers) > 10
    for number in numbers:
        assert number["runs"]
        assert all((finished.folder / run / "record.json").exists() for run in number["runs"])


def test_the_page_needs_nothing_from_outside(finished: Checkout) -> None:
    page = (finished.folder / "reports/digits/index.html").read_text()
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page.replace("xlink:href", ""))
    assert "<script" not in page
    assert page.count("<svg") == 3


def test_another_rule_of_training_time_makes_the_report_alone_again(copy: Checkout) -> None:
    copy.edit("config.yaml", "clock: steps", "clock: mlperf")
    assert copy.planned() == {"report": 1}
    copy.snakemake()
    counted = ("data", "train", "data_wait", "validate", "checkpoint", "other", "wasted")
    for row in read(copy, "results.csv"):
        folders = [row["pretrain_folder"], row["finetune_folder"]]
        ledgers = [
            json.loads((copy.folder / folder / "record.json").read_text())["seconds"]
            for folder in folders
            if folder
        ]
        expected = sum(ledger[phase] for ledger in ledgers for phase in counted)
        assert float(row["training_seconds"]) == pytest.approx(expected)
        to_target = float(row["seconds_to_target"])
        assert to_target <= expected or to_target == float("inf")
    page = (copy.folder / "reports/digits/index.html").read_text()
    assert "Training counts all from the first look at the data" in page


def test_every_ledger_sums_to_its_wall_time(finished: Checkout) -> None:
    for path in (finished.folder / "results").glob("[!c]*/*/*/record.json"):
        seconds = json.loads(path.read_text())["seconds"]
        wall = seconds.pop("wall")
        assert sum(seconds.values()) == pytest.approx(wall, rel=0.001)
        rows = (path.parent / "benchmark.tsv").read_text().splitlines()
        outside = float(rows[1].split("\t")[0])
        assert wall <= outside + 0.05


def test_the_peak_of_a_device_is_the_best_that_any_run_on_equal_terms_has_seen() -> None:
    def record(peak: float, threads: int = 1, seconds: float = 2.0) -> dict:
        return {
            "device": {"name": "a", "threads": threads, "devices": 1}, "precision": "32-true",
            "environment": {"packages": {"torch": "2"}}, "seconds": {"train": seconds},
            "measured": {"peak_flops_per_second": peak}, "flops_per_sample": 10.0,
        }  # fmt: skip

    held_back, calm = record(50.0), record(100.0)
    peaks = costs.peaks([held_back, calm, record(900.0, threads=4)])
    history = [{"samples": 8.0}]
    assert costs.mfu(held_back, history, peaks) == pytest.approx(0.4)
    assert costs.mfu(calm, history, peaks) == pytest.approx(0.4)
