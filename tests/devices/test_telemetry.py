"""Energy, memory and interference of runs, on GPUs and beside processes that the tests invent."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.checkout import PROJECT
from support.workflows import BUSY, until

from assay.devices import energy
from assay.devices.telemetry import Meter
from assay.reporting import comparability

MEASURE = """
import json, sys, time
from assay.devices import energy, telemetry
def counted(uuid):
    global polls
    seen = interference(uuid)
    polls += 1
    return seen
interference, telemetry._interference, polls = telemetry._interference, counted, 0
energy.GpuEnergy.poll_seconds = energy.GpuPower.poll_seconds = 0.01
telemetry.POLL_SECONDS = 0.01
meter = telemetry.Meter(sys.argv[2:], shared=sys.argv[1] == "shared")
before = time.perf_counter()
with meter.running():
    start = time.perf_counter()
    print("started", flush=True)
    sys.stdin.readline()
    enough = polls + 2 * len(meter.gpus)
    while polls < enough:
        time.sleep(0.01)
    end = time.perf_counter()
after = time.perf_counter()
print(json.dumps({**meter.total(), "shortest": end - start, "longest": after - before}))
"""


def measured(
    gpus: Any,
    *uuids: str,
    kind: str = "exclusive",
    meanwhile: Callable[[int], None] = lambda pid: None,
) -> dict[str, Any]:
    """Return what a process with these GPUs measures, `meanwhile` and for two polls after it."""
    environment = {**os.environ, **gpus.environment, "PYTHONPATH": str(PROJECT / "src")}
    with subprocess.Popen(
        [sys.executable, "-c", MEASURE, kind, *uuids], env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "started\n"
        meanwhile(process.pid)
        return json.loads(process.communicate("\n")[0])


@pytest.mark.parametrize("energy_joules", (5.0, None), ids=("energy counter", "power only"))
def test_energy_is_power_times_time(fake_gpus: Callable, energy_joules: float | None) -> None:
    gpus = fake_gpus(count=2, power_watts=150, energy_joules=energy_joules)
    found = measured(gpus, *(gpu.uuid for gpu in gpus))
    assert found["missing"] is None
    least, most = (2 * 150 * found[name] for name in ("shortest", "longest"))
    assert least - 0.01 <= found["counts"]["joules"] <= most + 0.01


@pytest.mark.parametrize(
    ("change", "why"),
    (
        (lambda gpu: setattr(gpu, "lost", True), "the GPU does not report its energy"),
        (lambda gpu: setattr(gpu, "energy_joules", 0), "was reset"),
    ),
)
def test_energy_that_is_lost_during_a_run_is_missing_instead_of_wrong(
    fake_gpus: Callable, change: Callable, why: str
) -> None:
    gpus = fake_gpus(count=1, power_watts=100, energy_joules=1e6)

    def meanwhile(pid: int) -> None:
        change(gpus[0])
        gpus.save()

    found = measured(gpus, gpus[0].uuid, meanwhile=meanwhile)
    assert "joules" not in found["counts"]
    assert why in found["missing"]


def test_mig_instances_and_shared_gpus_have_no_energy_of_their_own(fake_gpus: Callable) -> None:
    gpus = fake_gpus(count=2, power_watts=100)
    gpus[0].divide(2)
    gpus.save()
    assert "MIG" in measured(gpus, gpus[0].instances[0].uuid)["missing"]
    assert "side by side" in measured(gpus, gpus[1].uuid, kind="shared")["missing"]


def test_missing_sensors_do_not_count_as_interference(fake_gpus: Callable) -> None:
    gpus = fake_gpus(count=2, throttle_reasons=None, memory_used_bytes=None)
    gpus[0].divide(2)
    gpus.save()
    for uuid in (gpus[0].instances[0].uuid, gpus[1].uuid):
        assert measured(gpus, uuid)["seen"] == []


def test_energy_is_known_for_a_whole_run_or_not_at_all() -> None:
    def total(meter: Meter) -> dict[str, Any]:
        with meter.running():
            return meter.total()

    resumed = Meter()
    resumed.resume({"counts": {"seconds": 9.0}, "seen": [], "missing": "a reason"})
    assert total(resumed)["missing"] == "a reason"
    shared = Meter(shared=True)
    shared.resume({"counts": {"seconds": 9.0, "joules": 5.0}, "seen": [], "missing": None})
    found = total(shared)
    assert "joules" not in found["counts"] and "side by side" in found["missing"]


def test_foreign_processes_and_heat_are_seen_and_the_run_itself_is_not_foreign(
    fake_gpus: Callable,
) -> None:
    gpus = fake_gpus(count=1)

    def undisturbed(pid: int) -> None:
        gpus[0].processes = [(pid, 2**30)]
        gpus.save()

    def disturbed(pid: int) -> None:
        gpus[0].processes = [(pid, 2**30), (os.getpid(), 2**30)]
        gpus[0].throttle_reasons = 0x40
        gpus.save()

    assert measured(gpus, gpus[0].uuid, meanwhile=undisturbed)["seen"] == []
    found = measured(gpus, gpus[0].uuid, meanwhile=disturbed)
    assert found["seen"] == ["GPU hot", "another process on the GPU"]


def test_a_processors_energy_counter_may_wrap_around(
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


def test_a_resumed_run_adds_to_the_counts_of_the_killed_process() -> None:
    first, second = Meter(), Meter()
    with first.running():
        time.sleep(0.1)
        kept = first.total()
    second.resume(json.loads(json.dumps(kept)))
    with second.running():
        time.sleep(0.1)
    assert second.total()["counts"]["seconds"] >= kept["counts"]["seconds"] + 0.1


def test_the_peak_memory_of_a_killed_process_counts() -> None:
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


@pytest.mark.slow
def test_the_pressure_and_the_load_of_the_machine_are_measured(hog: subprocess.Popen) -> None:
    if not Path("/proc/pressure/cpu").exists():
        pytest.skip("this kernel has no pressure stall information (PSI)")
    hogs, meter = [subprocess.Popen(BUSY) for _ in range(2 * (os.cpu_count() or 1))], Meter()
    with meter.running():
        until(lambda: meter.total()["counts"]["pressure_seconds"] > 0.3)
        until(lambda: meter.total()["peak_load"] > 0)
    for each in hogs:
        each.kill()
        each.wait()


def test_stolen_time_is_a_fraction_of_the_cores_that_a_run_may_use() -> None:
    counts = {"seconds": 10.0, "busy_seconds": 5.0, "workflow_seconds": 5.0, "core_seconds": 20.0}

    def found(stolen: float) -> list[str]:
        measured = {"seen": [], "counts": counts | {"stolen_seconds": stolen}}
        return comparability.contended({"measured": measured})

    assert found(0.5) == []
    assert found(2.0) == ["10% of the cores' time went to other virtual machines"]


def test_foreign_processes_are_distinguished_from_jobs_of_the_same_workflow(
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
