"""Who gets which GPU, and when, on GPUs that the tests make up."""

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.checkout import PROJECT, Checkout, tiny_study

HOLDER = """
import os, sys, time
from pathlib import Path
from assay.devices import leases
number, share, seconds, folder = *map(int, sys.argv[1:3]), float(sys.argv[3]), Path(sys.argv[4])
held = leases.take(number, share, lambda words: print(words, flush=True), lambda: None)
assert os.environ["CUDA_VISIBLE_DEVICES"] == ",".join(held)
marks = [folder / f"{uuid}.{os.getpid()}" for uuid in held]
for mark in marks:
    mark.touch()
print("has", *held, flush=True)
for uuid in held:
    others = [int(path.suffix[1:]) for path in folder.glob(f"{uuid}.*")]
    alive = [pid for pid in others if os.path.exists(f"/proc/{pid}")]
    assert len(alive) <= share, f"{uuid} is held by {alive}"
time.sleep(seconds)
for mark in marks:
    mark.unlink()
"""
CORES = """
import os, sys, time
from assay.devices import leases
os.setuid(int(sys.argv[2]))
leases.take_cores(sys.argv[1] == "alone", lambda words: print(words, flush=True), lambda: None)
print("has the cores", flush=True)
time.sleep(60)
"""


class Holder(subprocess.Popen):
    """A job that takes GPUs and keeps them for a while."""

    def __init__(self, gpus: Any, folder: Path, number: int = 1, share: int = 1,
                 seconds: float = 60, **environment: str) -> None:  # fmt: skip
        words = [str(number), str(share), str(seconds), str(folder)]
        super().__init__(
            [sys.executable, "-c", HOLDER, *words], env=around(folder, gpus, **environment),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def says(self) -> str:
        return self.stdout.readline().strip()

    def takes(self) -> list[str]:
        """The GPUs that it gets, without having to wait."""
        word, *held = self.says().split()
        assert word == "has"
        return held


class Cores(subprocess.Popen):
    """A job that takes the cores of the machine, alone or with others."""

    def __init__(self, folder: Path, how: str, user: int | None = None) -> None:
        words = [how, str(os.getuid() if user is None else user)]
        super().__init__(
            [sys.executable, "-c", CORES, *words], env=around(folder),
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def says(self) -> str:
        return self.stdout.readline().strip()

    def end(self) -> None:
        self.kill()
        self.communicate()


def around(folder: Path, gpus: Any = None, **environment: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    shown = gpus.environment if gpus else {}
    paths = {"PYTHONPATH": str(PROJECT / "src"), "ASSAY_LEASES": str(folder / "leases")}
    return {**kept, **shown, **paths, **environment}


@pytest.fixture
def hold(tmp_path: Path) -> Any:
    """Start a job that takes GPUs; all are ended with the test."""
    started: list[Holder] = []

    def begin(gpus: Any, **options: Any) -> Holder:
        started.append(Holder(gpus, tmp_path, **options))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def test_each_job_has_a_gpu_of_its_own_and_one_too_many_waits_and_says_so(
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


def test_jobs_share_a_gpu_where_the_study_says_so_and_spread_first(
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


def test_more_gpus_than_there_are_is_an_error_and_not_a_wait(
    fake_gpus: Callable, hold: Callable
) -> None:
    gpus = fake_gpus(count=2)
    gpus[1].lost = True
    gpus.save()
    done = hold(gpus, number=2)
    assert "needs 2 GPUs, and 1 can be used here" in done.communicate(timeout=20)[1]
    assert done.returncode


def test_a_gpu_that_somebody_uses_without_a_lease_is_left_alone_until_it_is_free(
    fake_gpus: Callable, hold: Callable
) -> None:
    gpus = fake_gpus(count=2)
    gpus[0].processes = [(os.getpid(), 2**30)]
    gpus[1].memory_used_bytes = 3 * 2**30
    gpus.save()
    job = hold(gpus)
    words = job.says()
    assert f"{gpus[0].uuid}: used by process {os.getpid()}, which has no lease" in words
    assert f"{gpus[1].uuid}: 3.2 GB of its memory are used by a process unknown here" in words
    gpus[1].memory_used_bytes, gpus[1].memory_reserved_bytes = 0, 3 * 2**30  # by the driver
    gpus.save()
    assert job.takes() == [gpus[1].uuid]


def test_a_screen_takes_memory_and_keeps_no_job_away(fake_gpus: Callable, hold: Callable) -> None:
    gpus = fake_gpus(count=1, memory_used_bytes=2**31)
    gpus[0].graphics_processes = [(os.getpid(), 2**31)]
    gpus.save()
    assert hold(gpus).takes() == [gpus[0].uuid]


def test_one_who_shares_a_gpu_is_no_stranger_to_the_next(
    fake_gpus: Callable, hold: Callable
) -> None:
    gpus = fake_gpus(count=1)
    first = hold(gpus, share=2)
    first.takes()
    gpus[0].processes = [(first.pid, 2**30)]
    gpus[0].memory_used_bytes = 2**31
    gpus.save()
    assert hold(gpus, share=2).takes() == [gpus[0].uuid]


def test_parts_of_a_divided_gpu_are_leased_one_by_one(fake_gpus: Callable, hold: Callable) -> None:
    gpus = fake_gpus(count=1)
    gpus[0].divide(2)
    gpus.save()
    held = [*hold(gpus).takes(), *hold(gpus).takes()]
    assert sorted(held) == sorted(part.uuid for part in gpus[0].instances)


def test_no_gpu_is_ever_held_twice_or_leaked_while_jobs_are_killed(
    fake_gpus: Callable, hold: Callable
) -> None:
    gpus, draw = fake_gpus(count=4), random.Random(0)
    faults: list[str] = []

    def workflow(jobs: int, number: int) -> None:
        """Jobs one after the other, as each of the places of a snakemake has them."""
        for _ in range(jobs):
            job = hold(gpus, number=number, seconds=draw.uniform(0, 0.2))
            if draw.random() < 0.4:
                with_patience = draw.uniform(0, 0.6)
                try:
                    job.wait(with_patience)
                except subprocess.TimeoutExpired:
                    job.kill()
            error = job.communicate(timeout=60)[1]
            if job.returncode not in (0, -signal.SIGKILL):
                faults.append(error)

    places = [threading.Thread(target=workflow, args=(6, 1 + place % 2)) for place in range(8)]
    for place in places:
        place.start()
    for place in places:
        place.join()
    assert not faults
    assert len(hold(gpus, number=4).takes()) == 4, "a lease was leaked"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_leases_hold_among_users() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        Path(name).chmod(0o1777)
        first = Cores(Path(name), "alone", user=65534)
        assert first.says() == "has the cores"
        second = Cores(Path(name), "alone", user=65533)
        assert "leased to process" in second.says()
        first.end()
        assert second.says() == "has the cores"
        second.end()


def test_one_who_needs_the_cores_alone_waits_for_the_others_and_those_who_come_later_for_it(
    tmp_path: Path,
) -> None:
    shared = [Cores(tmp_path, "shared"), Cores(tmp_path, "shared")]
    assert [job.says() for job in shared] == 2 * ["has the cores"]
    alone = Cores(tmp_path, "alone")
    assert "waiting for the cores" in alone.says()
    late = Cores(tmp_path, "shared")
    assert "waiting for the cores" in late.says()
    for job in shared:
        job.end()
    assert alone.says() == "has the cores"
    alone.end()
    assert late.says() == "has the cores"
    late.end()


def test_a_limit_on_gpus_is_kept_and_none_means_the_cpu(
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
