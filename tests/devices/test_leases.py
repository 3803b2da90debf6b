"""Which job gets which GPU, and when, on GPUs that the tests invent."""

import os
import random
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.checkout import Checkout, tiny_study
from support.leases import LIMIT_SECONDS, CoresJob, GpuJob


@pytest.fixture
def hold(tmp_path: Path) -> Any:
    """Start a job that leases GPUs; all are ended with the test."""
    started: list[GpuJob] = []

    def begin(gpus: Any, **options: Any) -> GpuJob:
        started.append(GpuJob(gpus, tmp_path, **options))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def test_each_job_gets_its_own_gpu_and_a_job_too_many_reports_why_it_waits(
    fake_gpus: Callable, hold: Callable
) -> None:
    gpus = fake_gpus(count=2)
    first, second = hold(gpus), hold(gpus)
    assert {*first.takes(), *second.takes()} == {gpu.uuid for gpu in gpus}
    third = hold(gpus)
    words = third.says()
    assert "waiting for 1 of the GPUs here" in words
    assert f"{gpus[0].uuid}: leased to process" in words
    first.kill()
    assert third.says().startswith("has")


def test_jobs_share_a_gpu_if_the_study_says_so_and_fill_free_gpus_first(
    fake_gpus: Callable, hold: Callable
) -> None:
    gpus = fake_gpus(count=2)
    names = {gpu.uuid for gpu in gpus}
    for _ in range(2):
        pair = [hold(gpus, share=2), hold(gpus, share=2)]
        assert {place for job in pair for place in job.takes()} == names
    assert "waiting" in hold(gpus, share=2).says()
    assert "waiting" in hold(gpus).says(), "a job got a GPU for itself that others share"


@pytest.mark.parametrize("words", ("2,0", "{2},{0}", "{2:.12},0", "2,0,9,1"))
def test_only_the_gpus_that_the_environment_names_are_used(
    fake_gpus: Callable, hold: Callable, words: str
) -> None:
    gpus = fake_gpus(count=3)
    visible = words.format(*(gpu.uuid for gpu in gpus))
    held = hold(gpus, number=2, CUDA_VISIBLE_DEVICES=visible).takes()
    assert held == [gpus[2].uuid, gpus[0].uuid]


def test_a_job_that_needs_more_gpus_than_exist_fails_instead_of_waiting(
    fake_gpus: Callable, hold: Callable
) -> None:
    gpus = fake_gpus(count=2)
    gpus[1].lost = True
    gpus.save()
    done = hold(gpus, number=2)
    assert "needs 2 GPUs, and 1 can be used here" in done.communicate(timeout=LIMIT_SECONDS)[1]
    assert done.returncode


def test_a_gpu_used_by_a_foreign_process_is_not_leased_until_it_is_free(
    fake_gpus: Callable, hold: Callable
) -> None:
    gpus = fake_gpus(count=2)
    gpus[0].processes = [(os.getpid(), 2**30)]
    gpus[1].memory_used_bytes = 3 * 2**30
    gpus.save()
    job = hold(gpus)
    words = job.says()
    assert f"{gpus[0].uuid}: used by process {os.getpid()}, which has no lease" in words
    assert f"{gpus[1].uuid}: 3.22 GB of its memory are used by an unknown process" in words
    gpus[1].memory_used_bytes, gpus[1].memory_reserved_bytes = 0, 3 * 2**30  # by the driver
    gpus.save()
    assert job.takes() == [gpus[1].uuid]


def test_the_memory_of_a_display_does_not_block_a_gpu(fake_gpus: Callable, hold: Callable) -> None:
    gpus = fake_gpus(count=1, memory_used_bytes=2**31)
    gpus[0].graphics_processes = [(os.getpid(), 2**31)]
    gpus.save()
    assert hold(gpus).takes() == [gpus[0].uuid]


def test_a_job_that_shares_a_gpu_is_not_a_foreign_process_to_the_next_job(
    fake_gpus: Callable, hold: Callable
) -> None:
    gpus = fake_gpus(count=1)
    first = hold(gpus, share=2)
    first.takes()
    gpus[0].processes = [(first.pid, 2**30)]
    gpus[0].memory_used_bytes = 2**31
    gpus.save()
    assert hold(gpus, share=2).takes() == [gpus[0].uuid]


def test_mig_instances_are_leased_one_by_one(fake_gpus: Callable, hold: Callable) -> None:
    gpus = fake_gpus(count=1)
    gpus[0].divide(2)
    gpus.save()
    held = [*hold(gpus).takes(), *hold(gpus).takes()]
    assert sorted(held) == sorted(part.uuid for part in gpus[0].instances)


@pytest.mark.slow
def test_no_gpu_is_ever_held_twice_or_leaked_while_jobs_are_killed(
    fake_gpus: Callable, hold: Callable
) -> None:
    gpus, draw = fake_gpus(count=4), random.Random(0)
    errors: list[str] = []

    def workflow(jobs: int, number: int) -> None:
        """Run jobs one after the other, as snakemake does on one of its cores."""
        for _ in range(jobs):
            job = hold(gpus, number=number, seconds=draw.uniform(0, 0.2))
            if draw.random() < 0.4:
                with suppress(subprocess.TimeoutExpired):
                    job.wait(draw.uniform(0, 0.6))
                job.kill()
            error = job.communicate(timeout=LIMIT_SECONDS)[1]
            if job.returncode not in (0, -signal.SIGKILL):
                errors.append(error)

    threads = [threading.Thread(target=workflow, args=(6, 1 + index % 2)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(hold(gpus, number=4).takes()) == 4, "a lease was leaked"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_leases_count_among_users() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o1777)
        first = CoresJob(Path(name), "exclusive", user=65534)
        assert first.says() == "has the cores"
        second = CoresJob(Path(name), "exclusive", user=65533)
        assert "leased to process" in second.says()
        first.end()
        assert second.says() == "has the cores"
        second.end()


def test_an_exclusive_job_waits_for_the_others_and_later_jobs_wait_for_it(
    tmp_path: Path,
) -> None:
    shared = [CoresJob(tmp_path, "shared"), CoresJob(tmp_path, "shared")]
    assert [job.says() for job in shared] == 2 * ["has the cores"]
    alone = CoresJob(tmp_path, "exclusive")
    assert "waiting for the cores" in alone.says()
    late = CoresJob(tmp_path, "shared")
    assert "waiting for the cores" in late.says()
    for job in shared:
        job.end()
    assert alone.says() == "has the cores"
    alone.end()
    assert late.says() == "has the cores"
    late.end()


@pytest.mark.slow
def test_a_limit_on_gpus_is_respected_and_a_limit_of_0_means_the_cpu(
    fake_gpus: Callable, checkout: Checkout
) -> None:
    gpus = fake_gpus(count=2)
    checkout.write_study(tiny_study() | {"device": "auto"})
    environment = checkout.environment | gpus.environment
    del environment["CUDA_VISIBLE_DEVICES"]

    def kinds(*options: str) -> set[str]:
        command = ["snakemake", "-n", "-p", *options]
        done = subprocess.run(
            command, cwd=checkout.folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return set(re.findall(r'"device":"(\w+)"', done.stdout + done.stderr))

    assert kinds() == kinds("--resources", "gpu=1") == {"gpu"}
    assert kinds("--resources", "gpu=0") == {"cpu"}
    checkout.write_study(tiny_study() | {"device": "gpu", "devices": 2})
    for cores in ("--cores", "-j"):
        done = subprocess.run(
            ["snakemake", cores, "2", "--resources", "gpu=1"], cwd=checkout.folder,
            env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert "2 GPUs (devices), and 1 can be used here" in done.stdout + done.stderr
