"""What a person typed after `snakemake`, as this workflow reads it."""

from pathlib import Path

import pytest
from support.checkout import PROJECT

from assay.workflow import command_line
from assay.workflow.command_line import CommandLine

SNAKEFILE = str(PROJECT / "Snakefile")


def read(*arguments: str) -> CommandLine:
    return command_line.read(list(arguments), SNAKEFILE)


def test_no_argument_means_the_whole_study_on_this_machine() -> None:
    found = read()
    assert (found.targets, found.until, found.config) == ((), (), {})
    assert found.is_main and found.is_local and found.is_plain and not found.is_dry
    assert found.cores  # `cores: all` of the profile


def test_targets_values_and_limits_are_read() -> None:
    found = read("scratch", "--config", "seeds=[0]", "study=x", "--resources", "gpu=2", "-c", "3")
    assert found.targets == ("scratch",)
    assert found.config == {"seeds": ["0"], "study": "x"}
    assert (found.gpus, found.cores) == (2, 3)
    assert read("--until", "finetune", "-n").until == ("finetune",)


def test_jobs_mean_cores_where_jobs_run_here() -> None:
    assert read("-j", "3").cores == 3


@pytest.mark.parametrize("option", ("--verbose", "-p", "--quiet", "--debug-dag"))
def test_options_on_what_is_printed_are_left_to_snakemake(option: str) -> None:
    assert not read(option).is_plain


@pytest.mark.parametrize("option", ("-n", "--touch"))
def test_a_dry_run_and_a_touch_execute_nothing(option: str) -> None:
    assert read(option).is_dry


def test_a_job_is_not_the_main_process() -> None:
    assert not read("--mode", "subprocess", "--cores", "1").is_main


def test_the_workflow_profile_counts_in_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read().cores


def test_arguments_of_another_program_are_ignored() -> None:
    assert read("--an-option-of-pytest").targets == ()
