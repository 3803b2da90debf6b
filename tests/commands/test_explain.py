"""`assay plan` and `assay explain`: what would run, because of which change, and for how long."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace

import pytest
from support.checkout import Checkout
from support.workflows import only

from assay.commands import cli, forecast, reasons


def test_the_plan_names_the_changed_key_with_its_values(
    inside: Checkout, assay: Callable[..., str]
) -> None:
    assert assay("plan").startswith("Nothing to run")
    inside.edit("config.yaml", "label_smoothing: 0.0", "label_smoothing: 0.1")
    for text in (assay("plan"), " ".join(inside.snakemake("-n").split())):
        assert "reason finetune scratch_few 0,1" in text
        assert "objective.label_smoothing: 0 -> 0.1" in text
        assert "its parent finetune/scratch_few changed" in text
        assert "12 runs, about" in text
        rows = text.partition("would run")[2].partition("runs,")[0]
        assert "pretrain self_supervised" not in rows


def test_the_plan_names_the_file_the_parent_and_what_has_not_run(
    inside: Checkout, assay: Callable[..., str]
) -> None:
    inside.edit("src/assay/nn/augmentations.py", "torch", "torch  ")
    assert assay("plan").startswith("Nothing to run")
    path = inside.folder / "src/assay/objectives/vicreg.py"
    path.write_text(path.read_text() + "\nNEW = 1\n")
    study = inside.study()
    study["seeds"] = [0, 1, 2]
    study["experiments"]["more"] = study["experiments"]["scratch_few"] | {"steps": 60}
    inside.write_study(study)
    text = assay("plan")
    assert "pretrain self_supervised 0,1" in text
    assert "src/assay/objectives/vicreg.py changed" in text
    assert "its parent pretrain/self_supervised changed" in text
    assert "finetune more 0-2" in text
    assert "it has not run yet" in text
    assert "this seed has not run yet" in text
    one = assay("explain", "finetune/finetuned_few/seed0")
    assert "its parent pretrain/self_supervised changed compared with results/" in one
    assert "expected time: about" in one
    assert "complete; would not run" in assay("explain", "finetune/scratch_few/seed0")


def test_a_failed_a_killed_and_a_missing_run_each_have_their_reason(
    inside: Checkout, as_json: Callable
) -> None:
    failed, killed, lost = (
        only(inside, f"finetune/{name}/seed0-*")
        for name in ("scratch_few", "finetuned_few", "frozen_few")
    )
    (failed / "record.json").unlink()
    (failed / "failure.json").write_text(json.dumps({"reason": "the disk is full", "code": 74}))
    (killed / "record.json").unlink()
    (killed / "resume").mkdir()
    (lost / "weights.safetensors").unlink()
    found = {run["run"]: run["reasons"] for run in as_json("plan")["runs"]}
    assert found["finetune/scratch_few/seed0"] == ["it failed: the disk is full"]
    assert found["finetune/finetuned_few/seed0"] == [
        "it was killed and resumes from its last checkpoint"
    ]
    assert found["finetune/frozen_few/seed0"] == ["one of its files is missing"]
    assert found["evaluate/frozen_few/seed0"] == ["its parent finetune/frozen_few runs again"]
    assert len(found) == 6


def test_json_has_the_runs_their_reasons_and_the_seconds(
    inside: Checkout, as_json: Callable
) -> None:
    assert as_json("plan")["runs"] == []
    shutil.rmtree(only(inside, "pretrain/self_supervised/seed1-*"))
    found = as_json("plan")
    assert [run["stage"] for run in found["runs"]] == ["pretrain", *["finetune", "evaluate"] * 2]
    assert found["runs"][0]["reasons"] == ["this seed has not run yet"]
    assert found["runs"][0]["folder"].endswith(found["runs"][0]["hash"])
    assert found["report"] == "it depends on runs that are due"
    assert 0 < found["seconds"] <= sum(run["seconds"] for run in found["runs"])
    due = {run["run"]: run["due"] for run in as_json("explain", "pretrain")}
    assert due == {"pretrain/self_supervised/seed0": False, "pretrain/self_supervised/seed1": True}


def test_the_report_has_a_reason_of_its_own(inside: Checkout, as_json: Callable) -> None:
    inside.edit("config.yaml", "target: 0.1", "target: 0.2")
    assert as_json("plan")["report"] == (
        "the study's report section or the code of the report changed"
    )
    (inside.folder / "reports/digits/index.html").unlink()
    assert as_json("plan")["report"] == "index.html is missing"


def test_the_predicted_time_grows_with_the_steps(inside: Checkout) -> None:
    plan = cli.read(inside.folder / "config.yaml")
    [run] = cli.select(plan, "finetune/scratch_few/seed0")
    record = json.loads((inside.folder / run.record).read_text())
    longer = replace(run, settings=run.settings | {"steps": 100 * run.settings["steps"]})
    seconds = record["seconds"]
    growing = sum(seconds[phase] for phase in ("train", "data_wait", "validate", "checkpoint"))
    assert forecast.scaled(longer, record) == pytest.approx(seconds["wall"] + 99 * growing)


def test_the_total_time_respects_parents_and_the_width_of_jobs(inside: Checkout) -> None:
    plan = cli.read(inside.folder / "config.yaml")
    every = dict.fromkeys((run.folder for run in plan.runs), 1.0)
    assert forecast.makespan(plan.runs, every, cores=1) == len(plan.runs)
    assert forecast.makespan(plan.runs, every, cores=1000) == 4  # prepare to evaluate


def test_runs_are_due_with_all_that_depends_on_them(inside: Checkout) -> None:
    plan = cli.read(inside.folder / "config.yaml")
    assert reasons.due(plan) == {}
    shutil.rmtree(inside.folder / plan.runs[0].folder)
    assert list(reasons.due(plan)) == [run.folder for run in plan.runs]
