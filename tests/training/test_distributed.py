"""Trainings on several devices: here processes on a CPU, which communicate over gloo."""

import contextlib
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from support.checkout import Checkout
from support.leases import around
from support.modules import fitted, of_one
from support.trainings import (
    attempt,
    die,
    in_step,
    in_validation,
    result,
    scheduled,
    slow,
    step_by_step,
    train,
    workshop,
)  # fmt: skip

from assay.jobs.job import Job
from assay.objectives.classification import Classification
from assay.reporting import costs
from assay.runs import artifacts, records
from assay.runs.errors import ExitCode
from assay.runs.execution import Execution
from assay.runs.ledger import training_seconds
from assay.study.schema import Cost
from assay.study.training_settings import TrainingSettings
from assay.training import batches, distributed, rng


def on(devices: int, **changes: object) -> dict:
    """Settings of a training on some devices."""
    return {"devices": devices, "batch_size": 6, **changes}


def only_in(number: int, act: Callable[[], None] = die) -> Callable[[], None]:
    """Act in the process of one device alone."""
    return lambda: act() if dist.get_rank() == number else None


def reason(folder: Path) -> str:
    return records.read_failure(folder)["reason"]


@pytest.mark.slow
def test_two_devices_learn_from_the_examples_of_one_in_the_same_steps() -> None:
    with workshop() as (data, runs):
        seen = {}
        for devices in (1, 2):
            folder = runs / f"seen{devices}"
            folder.mkdir(parents=True)

            def note(folder: Path = folder) -> None:
                original = Classification.training_step

                def step(self: Classification, batch: dict, *rest: object) -> torch.Tensor:
                    if self._trainer is not None:  # else operations are counted
                        pixels = batch["image"][:, 0, 0, 0].tolist()
                        with (folder / f"{self.trainer.global_step}").open("a") as file:
                            file.write("".join(f"{pixel}\n" for pixel in pixels))
                    return original(self, batch, *rest)

                Classification.training_step = step

            assert attempt(train(data, runs / str(devices), on(devices)), note) == 0
            files = [folder / str(number) for number in range(12)]
            seen[devices] = [sorted(path.read_text().split()) for path in files]
        assert seen[1] == seen[2]
        assert all(len(examples) == 6 for examples in seen[1])


@pytest.mark.slow
def test_a_process_group_of_one_process_changes_no_byte(tmp_path: Path) -> None:
    assert len(set(of_one(tmp_path, "cpu"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("extra", ({}, {"gradient_accumulation_steps": 2}, {"ema_decay": 0.9}))
def test_weights_are_those_of_one_device_up_to_rounding(extra: dict, tmp_path: Path) -> None:
    found = {}
    for devices in (1, 2, 4):
        folder = tmp_path / str(devices)
        assert attempt(lambda at=folder, n=devices: fitted(at, {"devices": n, **extra})) == 0
        found[devices] = load_file(folder / artifacts.WEIGHTS)
    for devices in (2, 4):
        for name, weight in found[1].items():
            torch.testing.assert_close(found[devices][name], weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "extra",
    (
        {},
        slow({"gradient_accumulation_steps": 2}),
        slow({"precision": "bf16-mixed"}),
        slow({"frozen": ["backbone"]}),
    ),
)
def test_steps_on_several_devices_are_those_of_lightning(extra: dict) -> None:
    with workshop() as (data, runs):
        assert attempt(train(data, runs / "ours", on(2, **extra))) == 0
        assert attempt(train(data, runs / "lightning", on(2, **extra)), step_by_step) == 0
        assert result(runs / "ours") == result(runs / "lightning")


@pytest.mark.parametrize("devices, extra", (
    (2, {}), slow(3, {}), slow(3, {"gradient_accumulation_steps": 2, "ema_decay": 0.9}),
    slow(2, {"early_stopping_patience": 1}),
))  # fmt: skip
def test_a_training_killed_on_any_device_ends_in_the_bytes_of_an_undisturbed_one(
    devices: int, extra: dict
) -> None:
    with workshop() as (data, runs):
        changes = on(devices, **extra)
        assert attempt(train(data, runs / "undisturbed", changes, Execution())) == 0
        work = train(data, runs / "killed", changes)
        assert attempt(work, in_step(3, only_in(0))) == -signal.SIGKILL
        assert attempt(work, in_step(2, only_in(devices - 1))) == ExitCode.STOPPED
        assert f"device {devices - 1} was killed (SIGKILL)" in reason(runs / "killed")
        attempt(work, in_validation(1))
        assert attempt(work) == 0
        assert records.read(runs / "killed")["attempts"] == 4
        assert result(runs / "killed") == result(runs / "undisturbed")


@pytest.mark.slow
def test_a_schedule_of_the_module_survives_a_kill_on_several_devices() -> None:
    configure = scheduled("by step")
    with workshop() as (data, runs):
        assert attempt(train(data, runs / "undisturbed", on(2)), configure) == 0
        work = train(data, runs / "killed", on(2))
        kill = in_step(5, only_in(0))
        assert attempt(work, lambda: (configure(), kill())) == -signal.SIGKILL
        assert attempt(work, configure) == 0
        assert result(runs / "killed") == result(runs / "undisturbed")


def test_waiting_for_batches_is_a_phase_of_its_own_and_part_of_the_steps() -> None:
    """The first batch of an interval cannot be prepared ahead, so the training waits for it."""

    def delay() -> None:
        original = batches.Batches.__getitem__

        def get(self: batches.Batches, number: int) -> batches.Batch:
            if number % self.per_interval == 0:
                time.sleep(0.2)
            return original(self, number)

        batches.Batches.__getitem__ = get

    with workshop() as (data, runs):
        assert attempt(train(data, runs / "a", None, Execution(loader_workers=1)), delay) == 0
        seconds = records.read(runs / "a")["seconds"]
    assert seconds["data_wait"] >= 3 * 0.2  # intervals
    steps = seconds["train"] + seconds["data_wait"]
    assert training_seconds(seconds, "steps") == pytest.approx(steps)
    assert sum(seconds.values()) == pytest.approx(2 * seconds["wall"], rel=0.01)


@pytest.mark.slow
def test_loader_workers_of_each_device_change_no_byte() -> None:
    with workshop() as (data, runs):
        assert attempt(train(data, runs / "plain", on(2), Execution())) == 0
        assert attempt(train(data, runs / "ahead", on(2), Execution(loader_workers=1))) == 0
        assert result(runs / "ahead") == result(runs / "plain")


@pytest.mark.parametrize(
    "end",
    (
        slow("undisturbed"),
        slow("rank 0 is killed"),
        "another is killed",
        slow("an error"),
        slow("an error of rank 0"),
    ),
)
def test_no_process_survives_the_training(end: str, tmp_path: Path) -> None:
    acts = {
        "undisturbed": lambda: None, "rank 0 is killed": only_in(0),
        "another is killed": only_in(2), "an error": only_in(1, lambda: 1 / 0),
        "an error of rank 0": only_in(0, lambda: 1 / 0),
    }  # fmt: skip
    taken = itertools.count(1)

    def step() -> None:
        (tmp_path / str(os.getpid())).touch()
        if next(taken) == 6:
            acts[end]()

    with workshop() as (data, runs):
        attempt(train(data, runs / "a", on(3)), in_step(0, step))
    pids = [int(path.name) for path in tmp_path.iterdir()]
    assert len(pids) == 3
    while any(map(is_alive, pids)):
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_nothing_initialises_cuda_before_the_processes_are_forked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    for name in ("is_available", "is_bf16_supported", "current_device", "_lazy_init"):
        monkeypatch.setattr(torch.cuda, name, lambda *_, name=name, **__: asked.append(name))

    def reached(job: Job, settings: TrainingSettings, world_size: int) -> None:
        raise InterruptedError(f"{world_size} processes are to be forked")

    monkeypatch.setattr(distributed, "processes", reached)
    with pytest.raises(InterruptedError, match="2 processes"):
        fitted(tmp_path, {"device": "gpu", "devices": 2, "precision": "bf16-mixed"})
    assert asked == []


def test_an_error_on_another_device_is_reported_with_its_own_message() -> None:
    def fail() -> None:
        raise MemoryError("can't allocate memory")

    with workshop() as (data, runs):
        work = train(data, runs / "a", on(2))
        assert attempt(work, in_step(4, only_in(1, fail))) == ExitCode.MEMORY
        assert "the process of device 1: the machine has too little memory" in reason(runs / "a")
        assert attempt(work) == 0


def test_rank_0_ends_even_if_it_hangs_because_another_process_ended() -> None:
    def hang() -> None:
        distributed.HANG_SECONDS = 0.1
        only_in(1)()
        signal.pause()

    with workshop() as (data, runs):
        assert attempt(train(data, runs / "a", on(2)), in_step(4, hang)) == ExitCode.STOPPED
        assert "device 1 was killed (SIGKILL)" in reason(runs / "a")


@pytest.mark.slow
def test_more_devices_than_gpus_are_refused_before_the_first_job(
    checkout: Checkout, fake_gpus: Callable
) -> None:
    checkout.write_study(checkout.study() | {"device": "gpu", "devices": 2})
    gpus = fake_gpus(count=2, mig=False)
    gpus[0].divide(3)  # whose parts cannot work together
    gpus.save()
    environment = around(checkout.folder.parent, PATH=checkout.environment["PATH"])
    done = subprocess.run(
        ["snakemake", "--cores", "2"], cwd=checkout.folder, capture_output=True, text=True,
        env={**environment, **gpus.environment},
    )  # fmt: skip
    assert "a training takes 2 GPUs (devices), and 1 can be used here" in done.stderr
    assert not (checkout.folder / "results").exists()


@pytest.mark.slow
def test_sigterm_writes_a_checkpoint_on_several_devices() -> None:
    stop = in_step(5, only_in(0, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    with workshop() as (data, runs):
        assert attempt(train(data, runs / "undisturbed", on(2))) == 0
        work = train(data, runs / "a", on(2), Execution())
        assert attempt(work, stop) == ExitCode.STOPPED
        assert attempt(work) == 0
        assert result(runs / "a") == result(runs / "undisturbed")


def test_devices_draw_different_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(rng, "reseed", drawn.append)
    for rank in range(3):
        seeding = rng.SeedBatches(0, rank, 3)
        for number in range(4):
            seeding.before_batch(None, None, number)
    assert len(set(drawn)) == 12


@pytest.mark.slow
def test_a_study_on_two_devices_runs_to_its_report(checkout: Checkout) -> None:
    study = checkout.study() | {"devices": 2, "seeds": [0], "precision": "bf16-mixed"}
    study["pretrain"]["self_supervised"]["fsdp"] = True
    study["experiments"] = {"finetuned_few": study["experiments"]["finetuned_few"]}
    study["report"] |= {"comparisons": {}, "cost": {"per_hour": 1.0, "currency": "EUR"}}
    checkout.write_study(study)
    refused = checkout.run("snakemake", "--cores", "1")
    assert "a training takes 2 threads" in refused.stderr + refused.stdout
    checkout.snakemake()
    [path] = (checkout.folder / "results").glob("finetune/finetuned_few/*/record.json")
    record = records.read(path.parent)
    assert record["device"]["devices"] == 2 and record["settings"]["devices"] == 2
    cost = costs.cost(record, Cost(per_hour=3600.0, currency="EUR"))
    seconds = record["seconds"]["wall"] - record["seconds"]["wait"]
    assert cost == pytest.approx(2 * seconds)
    assert "2 x 1 thread" in (checkout.folder / "reports/digits/summary.csv").read_text()
