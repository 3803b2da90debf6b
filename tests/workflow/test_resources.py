"""Cores of this machine, and trainings that need more. GPUs: see tests/devices/test_leases.py."""

from dataclasses import replace
from pathlib import Path

import pytest
from snakemake.utils import available_cpu_count
from support.checkout import planned_study, tiny_study

from assay.study.schema import Study
from assay.workflow import resources
from assay.workflow.command_line import CommandLine


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return planned_study(tmp_path, tiny_study()).study


def test_all_cores_are_those_that_a_container_grants(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # as a quota

    def cores(command: CommandLine) -> int:
        return resources.limits("config.yaml", study, command)["local_cores"]

    assert cores(CommandLine()) == cores(CommandLine(cores=available_cpu_count())) == 1
    many = available_cpu_count() + 1
    assert cores(CommandLine(cores=many)) == many  # chosen by a person


@pytest.mark.parametrize("changes", ({"threads": 3}, {"devices": 3}, {"loader_workers": 2}))
def test_a_training_that_is_wider_than_the_machine_is_refused(
    study: Study, changes: dict[str, int]
) -> None:
    if "loader_workers" in changes:
        changes = {"execution": replace(study.execution, **changes)}
    with pytest.raises(SystemExit, match=r"c.yaml: a training takes 3 threads .* 2 can be used"):
        resources.limits("c.yaml", replace(study, **changes), CommandLine(cores=2))


def test_the_device_of_the_one_who_plans_is_that_of_the_jobs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ASSAY_DEVICE", "gpu")
    assert resources.device(CommandLine()) == "gpu"
    monkeypatch.setenv("ASSAY_DEVICE", "tpu")
    with pytest.raises(SystemExit, match="ASSAY_DEVICE: tpu is not a device: write cpu or gpu"):
        resources.device(CommandLine())


def test_a_study_for_a_gpu_is_refused_where_there_is_none(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(SystemExit, match=r"config.yaml: device: gpu: there is no NVIDIA GPU here"):
        resources.check_device("config.yaml", replace(study, device="gpu"))
