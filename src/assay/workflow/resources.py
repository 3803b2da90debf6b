"""How many cores and GPUs the jobs on this machine share, and which trainings need more."""

import os

from snakemake.utils import available_cpu_count

from assay.devices import cpu, gpus
from assay.study.schema import Study
from assay.workflow.command_line import CommandLine

CORES = "local_cores"  # Snakemake's own count of cores ignores the quota of a container


def device(command: CommandLine) -> str:
    """Return what `device: auto` means here; `--resources gpu=0` hides all GPUs.

    Raises:
        SystemExit: ASSAY_DEVICE names no device.
    """
    if command.gpus == 0 and command.is_local:
        os.environ[gpus.VISIBLE] = ""
    found = gpus.resolve("auto")
    if found not in gpus.KINDS:
        raise SystemExit(f"{gpus.AUTO}: {found} is not a device: write {' or '.join(gpus.KINDS)}")
    return found


def cores(command: CommandLine) -> int:
    """Return the cores that jobs on this machine may use together.

    `--cores all` means no more than the quota of a container.
    """
    available = cpu.available()
    if command.cores in (None, available_cpu_count()):
        return min(available, command.cores or available)
    return command.cores


def width(study: Study) -> int:
    """Return the threads that a training keeps busy."""
    return study.devices * (study.threads + study.execution.loader_workers)


def check_device(file: str, study: Study) -> None:
    """Refuse a study for a GPU where there is none.

    Raises:
        SystemExit: with the remedy.
    """
    if study.device == "gpu" and not gpus.count():
        raise SystemExit(
            f"{file}: device: gpu: there is no NVIDIA GPU here, or {gpus.VISIBLE} or "
            "--resources gpu=0 hides it: write auto or cpu"
        )


def limits(file: str, study: Study, command: CommandLine) -> dict[str, int]:
    """Return what the jobs on this machine share, by the names that rules use.

    Args:
        file: of the study, for messages.

    Raises:
        SystemExit: a training needs more.
    """
    shared, threads = {CORES: cores(command)}, width(study)
    if threads > shared[CORES]:
        raise SystemExit(
            f"{file}: a training takes {threads} threads (threads: {study.threads}, "
            f"loader_workers: {study.execution.loader_workers}, devices: {study.devices}), and "
            f"{shared[CORES]} can be used here: lower one of them, or use a machine with more cores"
        )
    if study.device == "gpu":
        shared["gpu"] = _jobs_on_gpus(file, study, command)
    return shared


def _jobs_on_gpus(file: str, study: Study, command: CommandLine) -> int:
    """Return how many one-GPU jobs can run at once: more would only wait for a lease."""
    visible, devices, sharing = gpus.available(), study.devices, study.execution.jobs_per_gpu
    count = len(visible) if command.gpus is None else min(len(visible), command.gpus)
    if sharing > 1:  # such jobs spread over all GPUs that they see
        os.environ[gpus.VISIBLE] = ",".join(gpu.uuid for gpu in visible[:count])
    together = min(count, len(gpus.usable(visible, devices)))
    if devices > together:
        raise SystemExit(
            f"{file}: a training takes {devices} GPUs (devices), and {together} can be used here, "
            "not counting MIG instances: lower devices, or use a machine with more GPUs"
        )
    return count * sharing
