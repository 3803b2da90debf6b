"""Cores of this machine, and trainings that need more. GPUs: see tests/devices/test_leases.py."""

import pytest
from snakemake.utils import available_cpu_count

from assay.runs.execution import Execution
from assay.workflow import resources
from assay.workflow.command_line import CommandLine

STUDY = {"device": "cpu", "devices": 1, "threads": 1}


def limits(command: CommandLine, execution: Execution = Execution(), **changes: int) -> dict:  # noqa: B008
    return resources.limits("config.yaml", STUDY | changes, execution, command)


def test_all_cores_are_those_that_a_container_grants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # as a quota
    assert limits(CommandLine(cores=available_cpu_count())) == {"local_cores": 1}
    assert limits(CommandLine()) == {"local_cores": 1}
    many = available_cpu_count() + 1
    assert limits(CommandLine(cores=many)) == {"local_cores": many}  # chosen by a person


@pytest.mark.parametrize(
    ("changes", "execution"),
    (
        ({"threads": 3}, Execution()),
        ({}, Execution(loader_workers=2)),
        ({"devices": 3}, Execution()),
    ),
)
def test_a_training_that_is_wider_than_the_machine_is_refused(
    changes: dict[str, int], execution: Execution
) -> None:
    with pytest.raises(
        SystemExit, match=r"config.yaml: a training takes 3 threads .* 2 can be used"
    ):
        limits(CommandLine(cores=2), execution, **changes)


def test_the_device_of_the_one_who_plans_is_that_of_the_jobs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ASSAY_DEVICE", "gpu")
    assert resources.device(CommandLine()) == "gpu"
    monkeypatch.setenv("ASSAY_DEVICE", "tpu")
    with pytest.raises(SystemExit, match="ASSAY_DEVICE: tpu is not a device: write cpu or gpu"):
        resources.device(CommandLine())


def test_a_study_for_a_gpu_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(SystemExit, match=r"config.yaml: device: gpu: there is no NVIDIA GPU here"):
        resources.check_device("config.yaml", STUDY | {"device": "gpu"})
