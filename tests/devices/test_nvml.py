"""The fake of NVIDIA's library behaves as its documentation says, called by the real `pynvml`."""

import ast
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from support.fake_nvml import FakeGpus

ANSWERS = """
import sys
import time
from pynvml import *

device = nvmlDeviceGetHandleByIndex
instance = nvmlDeviceGetMigDeviceHandleByIndex
for question in sys.stdin:
    try:
        answer = eval(question)
    except NVMLError as error:
        answer = type(error).__name__
    print(repr(answer), flush=True)
"""
PROCESSES = "[(p.pid, p.usedGpuMemory) for p in nvmlDeviceGet{}RunningProcesses({})]"
ENERGY = "nvmlDeviceGetTotalEnergyConsumption(device(0))"
BRACKETED = f"time.monotonic(), {ENERGY}, time.monotonic()"
LOST = "NVMLError_GpuIsLost"
NOT_SUPPORTED = "NVMLError_NotSupported"
Make = Callable[..., FakeGpus]


@contextmanager
def asking(gpus: FakeGpus) -> Iterator[Callable[[str], Any]]:
    """One subprocess that evaluates expressions with `pynvml`, until the block ends."""
    with subprocess.Popen(
        [sys.executable, "-c", ANSWERS], env={**os.environ, **gpus.environment},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip

        def ask(question: str) -> Any:
            print(question, file=process.stdin, flush=True)
            return ast.literal_eval(process.stdout.readline())

        ask("nvmlInit()")
        yield ask


def test_devices_are_distinguished_by_index_and_by_uuid(fake_gpus: Make) -> None:
    gpus = fake_gpus(count=3)
    gpus[1].name = "Another"
    gpus.save()
    with asking(gpus) as ask:
        uuids = ask("[nvmlDeviceGetUUID(device(i)) for i in range(nvmlDeviceGetCount())]")
        assert uuids == [gpu.uuid for gpu in gpus]
        by_uuid = f"nvmlDeviceGetHandleByUUID({gpus[1].uuid!r})"
        assert ask(f"nvmlDeviceGetName({by_uuid})") == "Another"
        assert ask("device(3)") == "NVMLError_InvalidArgument"
        assert ask("nvmlDeviceGetHandleByUUID('GPU-other')") == "NVMLError_NotFound"


def test_a_device_reports_its_settings(fake_gpus: Make) -> None:
    gpus = fake_gpus(
        memory_used_bytes=2**33, memory_reserved_bytes=2**32, power_watts=250.5,
        throttle_reasons=0x44,
    )  # fmt: skip
    answers = {
        "nvmlSystemGetDriverVersion()": "570.00",
        "nvmlDeviceGetMemoryInfo(device(0)).used": 2**33 + 2**32,
        "nvmlDeviceGetMemoryInfo(device(0), nvmlMemory_v2).free": 2**32,
        "nvmlDeviceGetMemoryInfo(device(0), nvmlMemory_v2).reserved": 2**32,
        "nvmlDeviceGetMemoryInfo(device(0), nvmlMemory_v2).used": 2**33,
        "nvmlDeviceGetPowerUsage(device(0))": 250_500,
        "nvmlDeviceGetCurrentClocksThrottleReasons(device(0))": 0x44,
        "nvmlDeviceGetCurrentClocksEventReasons(device(0))": 0x44,
        "nvmlDeviceGetMigMode(device(0))": NOT_SUPPORTED,
        "nvmlDeviceGetMaxMigDeviceCount(device(0))": 0,
        "nvmlErrorString(NVML_ERROR_GPU_IS_LOST)": "GPU is lost",
    }
    with asking(gpus) as ask:
        assert {question: ask(question) for question in answers} == answers


def test_energy_is_power_times_time_also_when_power_changes(fake_gpus: Make) -> None:
    gpus = fake_gpus(power_watts=100)
    start = gpus.saved_at_seconds
    with asking(gpus) as ask:
        early = ask(BRACKETED)
        gpus[0].power_watts = 300
        gpus.save()
        late = ask(BRACKETED)
    for (earliest, millijoules, latest), watts, saved, joules in (
        (early, 100, start, 1000), (late, 300, gpus.saved_at_seconds, gpus[0].energy_joules)
    ):  # fmt: skip
        added = millijoules / 1000 - joules
        assert watts * (earliest - saved) - 1 <= added <= watts * (latest - saved) + 1


def test_a_pascal_gpu_has_power_but_no_energy_counter(fake_gpus: Make) -> None:
    with asking(fake_gpus(energy_joules=None)) as ask:
        assert ask(ENERGY) == NOT_SUPPORTED
        assert ask("nvmlDeviceGetPowerUsage(device(0))") == 100_000


def test_processes_come_and_go_while_another_process_watches(fake_gpus: Make) -> None:
    gpus = fake_gpus(count=2)
    compute, graphics = (PROCESSES.format(kind, "device(0)") for kind in ("Compute", "Graphics"))
    with asking(gpus) as ask:
        assert ask(compute) == ask(graphics) == []
        gpus[0].processes = [(4242, 2**30), (4343, None)]
        gpus[0].graphics_processes = [(4444, 2**20)]
        gpus.save()
        assert ask(compute) == [(4242, 2**30), (4343, None)]
        assert ask(graphics) == [(4444, 2**20)]
        assert ask(PROCESSES.format("Compute", "device(1)")) == []
        gpus[0].processes = []
        gpus.save()
        assert ask(compute) == []


def test_a_device_is_lost_while_a_process_uses_it_and_others_stay(fake_gpus: Make) -> None:
    gpus = fake_gpus(count=2)
    with asking(gpus) as ask:
        ask("globals().update(held=device(1))")
        assert ask("nvmlDeviceGetPowerUsage(held)") == 100_000
        gpus[1].lost = True
        gpus.save()
        for call in ("PowerUsage", "MemoryInfo", "UUID", "ComputeRunningProcesses", "MigMode"):
            assert ask(f"nvmlDeviceGet{call}(held)") == LOST
        assert ask("device(1)") == ask(f"nvmlDeviceGetHandleByUUID({gpus[1].uuid!r})") == LOST
        assert ask("nvmlDeviceGetCount()") == 2
        assert ask("nvmlDeviceGetPowerUsage(device(0))") == 100_000


def test_without_a_driver_initialization_fails(fake_gpus: Make) -> None:
    gpus = fake_gpus()
    gpus.driver_version = None
    gpus.save()
    with asking(gpus) as ask:
        assert ask("nvmlInit()") == "NVMLError_DriverNotLoaded"
        assert ask("nvmlDeviceGetCount()") == "NVMLError_Uninitialized"


def test_after_the_last_shutdown_all_calls_fail(fake_gpus: Make) -> None:
    with asking(fake_gpus()) as ask:
        ask("nvmlInit()")
        ask("nvmlShutdown()")
        assert ask("nvmlDeviceGetCount()") == 1
        ask("nvmlShutdown()")
        assert ask("nvmlDeviceGetCount()") == "NVMLError_Uninitialized"


def test_mig_instances_have_memory_and_processes_but_no_sensors(fake_gpus: Make) -> None:
    gpus = fake_gpus(count=2, mig=False)
    gpus[0].divide(2)
    gpus[0].instances[1].processes = [(4242, 2**30)]
    gpus.save()
    second = f"nvmlDeviceGetHandleByUUID({gpus[0].instances[1].uuid!r})"
    answers = {
        "nvmlDeviceGetCount()": 2,
        "nvmlDeviceGetMigMode(device(0))": [1, 1],
        "nvmlDeviceGetMaxMigDeviceCount(device(0))": 7,
        "nvmlDeviceGetUUID(instance(device(0), 0))": gpus[0].instances[0].uuid,
        "instance(device(0), 2)": "NVMLError_NotFound",
        f"nvmlDeviceGetMemoryInfo({second}).total": 2**33,
        PROCESSES.format("Compute", second): [(4242, 2**30)],
        f"nvmlDeviceGetTotalEnergyConsumption({second})": NOT_SUPPORTED,
        f"nvmlDeviceGetPowerUsage({second})": NOT_SUPPORTED,
        "nvmlDeviceGetMigMode(device(1))": [0, 0],
        "instance(device(1), 0)": NOT_SUPPORTED,
    }
    with asking(gpus) as ask:
        assert {question: ask(question) for question in answers} == answers
