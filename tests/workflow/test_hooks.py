"""What happens around the jobs of a workflow."""

import os
from pathlib import Path

import pytest
from support.checkout import planned_study, tiny_study

from assay.runs import locks, records
from assay.study.plan import Plan
from assay.workflow import failures, hooks


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """The plan of the tiny study, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return planned_study(tmp_path, tiny_study())


def completed(plan: Plan) -> Path:
    """Return the folder of a run that looks complete."""
    run = plan.runs[-1]
    Path(run.folder).mkdir(parents=True)
    Path(run.record).write_text("{}")
    return Path(run.folder)


def test_a_second_snakemake_is_refused(plan: Plan) -> None:
    hooks.take_lock()
    with pytest.raises(SystemExit, match=f"Another snakemake .* process {os.getpid()}"):
        hooks.take_lock()
    hooks.HELD.pop().close()
    hooks.take_lock()
    hooks.HELD.pop().close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_a_folder_that_cannot_be_written_is_refused(plan: Plan) -> None:
    Path("results").mkdir(mode=0o500)
    with pytest.raises(SystemExit, match="results: cannot be written, but the workflow writes"):
        hooks.check_writable(plan)


def test_a_file_in_the_place_of_a_folder_is_refused(plan: Plan) -> None:
    hooks.check_writable(plan)
    Path("results").touch()
    with pytest.raises(SystemExit, match="results: is not a folder, but the workflow writes"):
        hooks.check_writable(plan)


def test_links_point_to_the_runs_of_the_plan_and_to_no_others(plan: Plan, tmp_path: Path) -> None:
    folder = completed(plan)
    hooks.link_runs(plan)
    link = Path("results/current/digits", plan.runs[-1].title)
    assert link.resolve() == folder.resolve()
    study = tiny_study()
    study["finetune"]["weight_decay"] = 0.3
    other = planned_study(tmp_path, study)
    hooks.link_runs(other)
    assert os.readlink(link) != os.path.relpath(folder, link.parent)
    hooks.link_runs(plan)
    assert link.resolve() == folder.resolve()
    del study["experiments"]["frozen_few"], study["report"]["comparisons"]["frozen_few"]
    hooks.link_runs(planned_study(tmp_path, study))
    assert not any(path.is_symlink() for path in Path("results/current").glob("*/*/frozen_few/*"))
    assert link.parent.parent.joinpath("scratch_few/seed0").is_symlink()


def test_a_copy_that_followed_the_links_gets_links_again(plan: Plan) -> None:
    link = Path(next(iter(plan.links())))
    link.mkdir(parents=True)
    (link / "record.json").touch()
    hooks.link_runs(plan)
    assert link.is_symlink()


def test_resume_folders_go_once_their_runs_are_complete_and_not_in_use(plan: Plan) -> None:
    complete, running = completed(plan) / records.RESUME, Path(plan.runs[0].folder, records.RESUME)
    complete.mkdir()
    running.mkdir(parents=True)
    with locks.acquire(complete.parent / records.LOCK):
        hooks.delete_resume_folders(plan)
        assert complete.exists()
    hooks.delete_resume_folders(plan)
    assert not complete.exists() and running.exists()


def test_jobs_that_need_torch_are_those_of_incomplete_runs(plan: Plan) -> None:
    before = hooks.torch_jobs(plan)
    completed(plan)
    assert (before, hooks.torch_jobs(plan)) == (14, 13)


def test_a_failure_is_what_the_job_wrote_or_else_what_its_end_tells(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("the last words")
    told = failures.reason(tmp_path, [str(log)], -9, None)
    assert told.startswith("was killed (SIGKILL)") and "[exit code -9, " in told
    assert records.read_failure(tmp_path)["code"] == -9
    records.write_failure(tmp_path, {"reason": "no room", "code": 74})
    assert failures.reason(tmp_path, [str(log)], 1, None).startswith("no room [exit code 74, ")


def test_of_a_job_on_a_cluster_the_executor_tells_and_names_its_log(tmp_path: Path) -> None:
    logs = [str(tmp_path / "log.txt"), str(tmp_path / "slurm.log")]
    told = failures.reason(tmp_path, logs, None, "SLURM status is: 'OUT_OF_MEMORY'")
    assert told == f"SLURM status is: 'OUT_OF_MEMORY' [exit code 1, {logs[1]}]"
