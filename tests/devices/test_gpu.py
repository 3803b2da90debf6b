"""Tests that need a real GPU; skipped where there is none."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.checkout import PROJECT, Checkout, tiny_study
from support.leases import GpuJob, around
from support.modules import of_one
from support.objectives import PRETRAININGS, content, prepare, pretrained
from support.trainings import attempt

from assay.devices import gpus

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(  # CUDA itself is not asked: processes are forked from this one
        not (torch.version.cuda and gpus.count() and shutil.which("nvidia-smi")),
        reason="there is no NVIDIA GPU here",
    ),
]
BUSY = """
import sys, time, torch
from assay.runs.ledger import Ledger
from assay.devices.telemetry import Meter
matrix = torch.ones(8192, 8192, device="cuda", dtype=torch.bfloat16)
def busy(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(10):
            matrix @ matrix
        torch.cuda.synchronize()
"""
ENERGY = """
busy(2)
meter, begun = Meter([sys.argv[1]]), time.monotonic()
with meter.running():
    busy(6)
counts = meter.total()["counts"]
print(counts["joules"], counts["seconds"], begun)
"""
LEDGER = """
ledger = Ledger(torch.cuda.synchronize)
first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
busy(0.5)
with ledger.spend("train"):
    first.record()
    busy(1.0)
    last.record()
torch.cuda.synchronize()
print(ledger.seconds["train"], first.elapsed_time(last) / 1000)
"""


def asked(query: str) -> list[str]:
    """Return the answer of nvidia-smi, one line per GPU."""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def visible(checkout: Checkout) -> dict[str, str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return around(checkout.folder.parent, PATH=path, PYTHONPATH="src")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A small study that has run on the GPU, one run at a time."""
    checkout = Checkout.new(tmp_path_factory.mktemp("gpu") / "checkout")
    small = tiny_study() | {"device": "gpu", "execution": {"timing": "exclusive"}}
    small["finetune"] |= {"steps": 600, "validate_every_steps": 200}
    checkout.write_study(small)
    command = ["snakemake", "--cores", "4"]
    subprocess.run(command, cwd=checkout.folder, env=visible(checkout), check=True)
    yield checkout


def records(checkout: Checkout, pattern: str) -> list[dict]:
    found = sorted(checkout.folder.glob(f"results/{pattern}/record.json"))
    return [json.loads(path.read_text()) for path in found]


def test_each_run_has_a_gpu_and_records_its_energy_and_memory(study: Checkout) -> None:
    for record in records(study, "finetune/*/*"):
        assert set(record["gpus"]) <= set(asked("uuid"))
        assert len(record["gpus"]) == 1
        assert record["device"]["name"] in asked("name")
        assert record["joules_missing_because"] is None
        assert record["joules"] > 0
        assert record["measured"]["peak_device_memory_bytes"] > 0
        seconds = record["seconds"]
        assert sum(seconds.values()) - seconds["wall"] == pytest.approx(seconds["wall"], rel=0.01)


def test_a_repeated_run_on_the_gpu_gives_the_same_bytes(study: Checkout) -> None:
    [folder] = study.folder.glob("results/finetune/finetuned_few/seed0-*")
    before = (folder / "weights.safetensors").read_bytes()
    shutil.rmtree(folder)
    command = ["snakemake", "--cores", "4"]
    subprocess.run(command, cwd=study.folder, env=visible(study), check=True)
    assert (folder / "weights.safetensors").read_bytes() == before


def test_a_run_that_was_killed_on_the_gpu_gives_the_same_bytes(study: Checkout) -> None:
    [folder] = study.folder.glob("results/finetune/scratch_few/seed0-*")
    before = (folder / "weights.safetensors").read_bytes()
    shutil.rmtree(folder)
    process = subprocess.Popen(
        ["snakemake", "--cores", "4"], cwd=study.folder, env=visible(study), start_new_session=True
    )
    while not list(folder.glob("resume/*.checkpoint")) and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    subprocess.run(["snakemake", "--cores", "4"], cwd=study.folder, env=visible(study), check=True)
    assert (folder / "weights.safetensors").read_bytes() == before


@pytest.mark.parametrize("precision", ("32-true", "bf16-mixed"))
@pytest.mark.parametrize("name", sorted(PRETRAININGS))
def test_each_objective_gives_the_same_bytes_twice_on_the_gpu(
    name: str, precision: str, tmp_path: Path
) -> None:
    data = prepare(tmp_path / "data", PRETRAININGS[name][0])
    for output in ("one", "other"):
        changes = {"device": "gpu", "precision": precision}
        assert attempt(pretrained(name, data, tmp_path / output, changes)) == 0
    assert content(tmp_path / "one") == content(tmp_path / "other")


def test_a_gpu_is_not_leased_twice(tmp_path: Path) -> None:
    jobs = [GpuJob(None, tmp_path) for _ in range(gpus.count() + 1)]
    words = [job.says().split()[0] for job in jobs]
    for job in jobs:
        job.kill()
        job.communicate()
    assert sorted(words) == sorted(["has"] * gpus.count() + ["waiting"])


def found_by(script: str, *arguments: str) -> list[float]:
    """Return the numbers that a script prints in a new process: this one must not use the GPUs."""
    command = [sys.executable, "-c", BUSY + script, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "src")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def test_energy_agrees_with_the_power_of_nvidia_smi() -> None:
    uuid, watts, ended = gpus.available()[0].uuid, [], threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            powers = dict(zip(asked("uuid"), asked("power.draw"), strict=True))
            watts.append((time.monotonic(), float(powers[uuid])))

    watching = threading.Thread(target=watch)
    watching.start()
    joules, seconds, begun = found_by(ENERGY, uuid)
    ended.set()
    watching.join()
    during = [power for at, power in watts if begun + 1 < at < begun + seconds]
    assert joules / seconds == pytest.approx(sum(during) / len(during), rel=0.15)


def test_the_ledger_agrees_with_cuda_events() -> None:
    ledger, events = found_by(LEDGER)
    assert ledger == pytest.approx(events, rel=0.01)


def test_a_world_of_one_over_nccl_gives_the_bytes_of_a_single_process(tmp_path: Path) -> None:
    assert len(set(of_one(tmp_path, "gpu"))) == 1


def test_results_do_not_depend_on_the_number_of_loader_workers(study: Checkout) -> None:
    [folder] = study.folder.glob("results/finetune/scratch_few/seed1-*")
    record = json.loads((folder / "record.json").read_text())
    output = study.folder / "aside/seed1"
    command = [sys.executable, "-m", "assay.finetune", "--settings", json.dumps(record["settings"])]
    command += ["--seed", "1", "--data", record["parents"]["data"]["folder"]]
    command += ["--output", str(output), "--execution", '{"loader_workers": 2}']
    subprocess.run(command, cwd=study.folder, env=visible(study), check=True)
    name = "weights.safetensors"
    assert (output / name).read_bytes() == (folder / name).read_bytes()
