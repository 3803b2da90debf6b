"""What a run takes and what disturbs it, beside GPUs and neighbours that the tests make up."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.checkout import PROJECT, Checkout, tiny_study

from assay.devices import energy
from assay.devices.telemetry import Meter
from assay.reporting import comparability
from assay.runs.ledger import Ledger, training_seconds

MEASURE = """
import json, sys, time
from assay.devices.telemetry import Meter
meter = Meter(sys.argv[2:], divided=sys.argv[1] == "divided")
with meter.running():
    print("begun", flush=True)
    sys.stdin.readline()
print(json.dumps(meter.total()), flush=True)
"""
BUSY = [sys.executable, "-c", "while True: pass"]


def measured(
    gpus: Any,
    *uuids: str,
    how: str = "alone",
    seconds: float = 0.7,
    meanwhile: Callable[[int], None] = lambda pid: None,
) -> dict[str, Any]:
    """What a process measures that has these GPUs."""
    paths = {"PYTHONPATH": str(PROJECT / "src")}
    environment = {**os.environ, **gpus.environment, **paths}
    with subprocess.Popen(
        [sys.executable, "-c", MEASURE, how, *uuids], env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "begun\n"
        meanwhile(process.pid)
        time.sleep(seconds)
        return json.loads(process.communicate("\n")[0])


@pytest.fixture
def hog() -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(BUSY)
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("generation", ("with a counter of energy", "with power alone"))
def test_energy_is_power_times_time(fake_gpus: Callable, generation: str) -> None:
    energy = 5.0 if generation == "with a counter of energy" else None
    gpus = fake_gpus(count=2, power_watts=150, energy_joules=energy)
    found = measured(gpus, *(gpu.uuid for gpu in gpus))
    assert found["missing"] is None
    counts = found["counts"]
    assert counts["joules"] == pytest.approx(2 * 150 * counts["seconds"], rel=0.05)


@pytest.mark.parametrize(
    ("change", "why"),
    (
        (lambda gpu: setattr(gpu, "lost", True), "the GPU does not tell its energy"),
        (lambda gpu: setattr(gpu, "energy_joules", 0), "was reset"),
    ),
)
def test_energy_that_is_lost_on_the_way_is_missing_and_not_wrong(
    fake_gpus: Callable, change: Callable, why: str
) -> None:
    gpus = fake_gpus(count=1, power_watts=100, energy_joules=1e6)

    def meanwhile(pid: int) -> None:
        change(gpus[0])
        gpus.save()

    found = measured(gpus, gpus[0].uuid, meanwhile=meanwhile)
    assert "joules" not in found["counts"]
    assert why in found["missing"]


def test_a_part_of_a_gpu_and_one_that_is_shared_have_no_energy_of_their_own(
    fake_gpus: Callable,
) -> None:
    gpus = fake_gpus(count=2, power_watts=100)
    gpus[0].divide(2)
    gpus.save()
    part = measured(gpus, gpus[0].instances[0].uuid, seconds=0.1)
    assert "MIG" in part["missing"]
    shared = measured(gpus, gpus[1].uuid, how="divided", seconds=0.1)
    assert "side by side" in shared["missing"]


def test_a_part_of_a_gpu_and_one_that_tells_little_are_not_disturbed_by_that(
    fake_gpus: Callable,
) -> None:
    gpus = fake_gpus(count=2, throttle_reasons=None, memory_used_bytes=None)
    gpus[0].divide(2)
    gpus.save()
    for uuid in (gpus[0].instances[0].uuid, gpus[1].uuid):
        assert measured(gpus, uuid, seconds=0.1)["seen"] == []


def test_energy_is_known_of_a_whole_run_or_not_at_all() -> None:
    def counting(meter: Meter) -> dict[str, Any]:
        with meter.running():
            return meter.total()

    begun = Meter()
    begun.resume({"counts": {"seconds": 9.0}, "seen": [], "missing": "a reason"})
    assert counting(begun)["missing"] == "a reason"
    lost = Meter(divided=True)
    lost.resume({"counts": {"seconds": 9.0, "joules": 5.0}, "seen": [], "missing": None})
    found = counting(lost)
    assert "joules" not in found["counts"] and "side by side" in found["missing"]


def test_waiting_for_a_device_is_not_lost_work() -> None:
    ledger = Ledger()
    with ledger.spend("wait"):
        time.sleep(0.2)
    ledger.resume({"train": 5.0})
    assert ledger.seconds["wait"] == pytest.approx(0.2, abs=0.05)
    total = ledger.total()
    assert total["wasted"] == pytest.approx(total["wall"] - 5 - ledger.seconds["wait"], abs=0.05)
    assert training_seconds(total, "mlperf") == pytest.approx(5 + total["wasted"], abs=0.05)


def test_strangers_on_the_gpu_and_heat_are_seen_and_the_run_itself_is_none(
    fake_gpus: Callable,
) -> None:
    gpus = fake_gpus(count=1)

    def alone(pid: int) -> None:
        gpus[0].processes = [(pid, 2**30)]
        gpus.save()

    def in_company(pid: int) -> None:
        gpus[0].processes = [(pid, 2**30), (os.getpid(), 2**30)]
        gpus[0].throttle_reasons = 0x40
        gpus.save()

    assert measured(gpus, gpus[0].uuid, meanwhile=alone, seconds=1.3)["seen"] == []
    found = measured(gpus, gpus[0].uuid, meanwhile=in_company, seconds=1.3)
    assert found["seen"] == ["GPU hot", "another process on the GPU"]


def test_a_processors_counter_may_start_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, begun in enumerate((900_000_000, 0)):
        package = tmp_path / f"intel-rapl:{number}"
        (package / "intel-rapl:0:0").mkdir(parents=True)
        (package / "name").write_text(f"package-{number}\n")
        (package / "max_energy_range_uj").write_text("999999999\n")
        (package / "energy_uj").write_text(f"{begun}\n")
    platform = tmp_path / "intel-rapl:2"  # holds the packages, and would count them twice
    platform.mkdir()
    (platform / "name").write_text("psys\n")
    monkeypatch.setattr(energy, "RAPL", tmp_path)
    meter = Meter()
    with meter.running():
        (tmp_path / "intel-rapl:0" / "energy_uj").write_text("100000000\n")
        (tmp_path / "intel-rapl:1" / "energy_uj").write_text("5000000\n")
    assert meter.total()["counts"]["joules"] == pytest.approx(205)


def test_what_a_killed_process_had_counted_goes_on_counting() -> None:
    first, second = Meter(), Meter()
    with first.running():
        time.sleep(0.1)
        kept = first.total()
    second.resume(json.loads(json.dumps(kept)))
    with second.running():
        time.sleep(0.1)
    assert second.total()["counts"]["seconds"] >= kept["counts"]["seconds"] + 0.1


def test_the_most_memory_that_a_killed_process_held_counts() -> None:
    first, second, third = Meter(), Meter(), Meter()
    assert first.total()["peak_memory_bytes"] > 10e6
    first.peaks["peak_device_memory_bytes"] = lambda: 7
    second.resume(json.loads(json.dumps(first.total())) | {"peak_memory_bytes": 10**15})
    assert second.total()["peak_memory_bytes"] == 10**15
    second.peaks["peak_device_memory_bytes"] = lambda: 5
    assert second.total()["peak_device_memory_bytes"] == 7
    third.resume(second.total())
    third.peaks["peak_device_memory_bytes"] = lambda: 9
    assert third.total()["peak_device_memory_bytes"] == 9


def test_the_pressure_and_the_load_of_the_machine_are_noted(hog: subprocess.Popen) -> None:
    if not Path("/proc/pressure/cpu").exists():
        pytest.skip("this kernel does not tell the pressure on its cores (PSI)")
    crowd, meter = [subprocess.Popen(BUSY) for _ in range(2 * (os.cpu_count() or 1))], Meter()
    with meter.running():
        time.sleep(1)
    for each in crowd:
        each.kill()
        each.wait()
    found = meter.total()
    assert found["counts"]["pressure_seconds"] > 0.3
    assert found["peak_load"] > 0


def test_time_taken_by_other_machines_is_a_share_of_the_cores_that_a_run_may_use() -> None:
    counts = {"seconds": 10.0, "busy_seconds": 5.0, "workflow_seconds": 5.0, "core_seconds": 20.0}

    def found(stolen: float) -> list[str]:
        measured = {"seen": [], "counts": counts | {"stolen_seconds": stolen}}
        return comparability.contended({"measured": measured})

    assert found(0.5) == []
    assert found(2.0) == ["10% of the cores' time went to other machines"]


def test_a_neighbour_is_told_from_a_job_of_the_same_workflow(
    hog: subprocess.Popen, monkeypatch: pytest.MonkeyPatch
) -> None:
    from assay.runs import supervision

    def spent() -> dict[str, float]:
        meter, worker = Meter(), psutil.Process(hog.pid)
        with meter.running():
            enough = worker.cpu_times().user + 0.5
            while worker.cpu_times().user < enough:
                time.sleep(0.05)
        return meter.total()["counts"]

    monkeypatch.setenv(supervision.PARENT, supervision.mark(os.getpid()))
    inside = spent()
    assert inside["workflow_seconds"] > 0.4, "the hog is a child of this workflow"
    other = subprocess.Popen(["sleep", "60"])
    monkeypatch.setenv(supervision.PARENT, supervision.mark(other.pid))
    outside = spent()
    other.kill()
    other.wait()
    assert outside["workflow_seconds"] < 0.1
    assert outside["busy_seconds"] > 0.4


def test_the_report_says_that_a_run_was_disturbed_and_does_not_compare_its_time(
    checkout: Checkout, hog: subprocess.Popen
) -> None:
    study = tiny_study()
    few = {"pretraining": "none", "steps": 3000, "validate_every_steps": 1000}
    study |= {"seeds": [0], "pretrain": {}, "execution": {"timing": "exclusive"}}
    study["experiments"] = {"beside": few}
    study["report"] |= {"comparisons": {}}
    checkout.write_study(study)
    checkout.snakemake()
    hog.kill()
    path = next(checkout.folder.glob("results/finetune/beside/seed0-*/record.json"))
    record = json.loads(path.read_text())
    assert record["timing"] == "exclusive"
    assert any("other work on" in words for words in comparability.contended(record))
    page = (checkout.folder / "reports/digits/index.html").read_text()
    assert "1 of 1 contended" in page
    record["measured"]["counts"]["busy_seconds"] = record["measured"]["counts"]["workflow_seconds"]
    quiet = comparability.conditions(record)
    assert comparability.obstacles([quiet, quiet]) == []
    noisy = comparability.conditions(json.loads(path.read_text()))
    assert comparability.obstacles([quiet, noisy]) == ["runs were disturbed"]
    assert comparability.obstacles([quiet, quiet | {"torch": "1.0"}]) == [
        f"torch 1.0 / {quiet['torch']}"
    ]
