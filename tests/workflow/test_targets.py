"""Short names for targets, and which runs they ask for."""

import os

import pytest
from support.checkout import planned_study, tiny_study

from assay.study.plan import Plan
from assay.workflow import targets
from assay.workflow.command_line import CommandLine


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return planned_study(tmp_path_factory.mktemp("targets"), tiny_study())


def named(plan: Plan, *words: str) -> dict[str, list[str]]:
    return targets.named(plan, CommandLine(targets=words))


@pytest.mark.parametrize(
    ("word", "stages"),
    (
        ("scratch_few", ["finetune", "finetune", "evaluate", "evaluate"]),
        ("self_supervised", ["pretrain", "pretrain"]),
        ("finetune/scratch_few", ["finetune", "finetune"]),
        ("pretrain/self_supervised/seed1", ["pretrain"]),
        ("results/current/digits/finetune/scratch_few/seed0", ["finetune"]),
    ),
)
def test_an_experiment_a_pretraining_and_a_path_name_their_runs(
    plan: Plan, word: str, stages: list[str]
) -> None:
    [(name, records)] = named(plan, word).items()
    assert name == word
    found = [plan.by_folder[os.path.dirname(record)].stage for record in records]
    assert sorted(found) == sorted(stages)


def test_rules_and_files_are_left_to_snakemake(plan: Plan) -> None:
    files = (plan.runs[-1].record, f"{plan.folder}/index.html", __file__)
    assert named(plan, "all", "report", *files) == {}


@pytest.mark.parametrize(
    ("word", "meant"),
    (
        ("scratch_fw", "scratch_few"),
        ("finetune/scratch_fw/seed0", "finetune/scratch_few/seed0"),
        ("reprot", "report"),
    ),
)
def test_a_mistyped_target_is_refused_with_a_suggestion(plan: Plan, word: str, meant: str) -> None:
    with pytest.raises(SystemExit, match=f"{word} is not a target .* did you mean {meant}?"):
        named(plan, word)
    with pytest.raises(SystemExit, match="did you mean"):
        targets.named(plan, CommandLine(until=(word,)))


def test_a_stage_is_refused_with_the_command_to_type(plan: Plan) -> None:
    with pytest.raises(SystemExit, match="type `snakemake --until finetune`"):
        named(plan, "finetune")


def requested(plan: Plan, *words: str, until: tuple[str, ...] = ()) -> dict[str, int]:
    runs = targets.requested(plan, CommandLine(targets=words, until=until))
    stages = [run.stage for run in runs]
    return {stage: stages.count(stage) for stage in dict.fromkeys(stages)}


def test_targets_ask_for_all_that_they_depend_on(plan: Plan) -> None:
    everything = {"prepare": 1, "pretrain": 2, "finetune": 6, "evaluate": 6}
    assert requested(plan) == everything
    assert requested(plan, "scratch_few", "report") == everything
    assert requested(plan, "reports/digits/figures/scores.svg") == everything
    assert requested(plan, "scratch_few") == {"prepare": 1, "finetune": 2, "evaluate": 2}
    record = next(run.record for run in plan.runs if run.stage == "pretrain")
    assert requested(plan, record) == {"prepare": 1, "pretrain": 1}


def test_until_leaves_out_what_follows(plan: Plan) -> None:
    assert requested(plan, until=("finetune",)) == {"prepare": 1, "pretrain": 2, "finetune": 6}
    assert requested(plan, "scratch_few", until=("finetune",)) == {"prepare": 1, "finetune": 2}
    assert requested(plan, until=("finetune/frozen_few/seed0",)) == {
        "prepare": 1, "pretrain": 1, "finetune": 1,
    }  # fmt: skip
