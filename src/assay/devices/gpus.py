"""The NVIDIA GPUs that this process may use, as NVML describes them."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

KINDS = ("cpu", "gpu")
VISIBLE = "CUDA_VISIBLE_DEVICES"
AUTO = "ASSAY_DEVICE"  # what `auto` means: jobs of a cluster get it from the one who plans


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU, or a MIG instance of one.

    Attributes:
        uuid: its name in CUDA and NVML, `GPU-...` or `MIG-...`.
        used_bytes: of its memory.
        processes: ids of the visible processes that compute on it.
        has_display: whether a program draws on a screen with it, which takes some of its memory.
    """

    uuid: str
    name: str
    used_bytes: int
    processes: tuple[int, ...]
    has_display: bool


def usable(gpus: list[Gpu], number: int) -> list[Gpu]:
    """Return the GPUs that a training on `number` GPUs can use."""
    return [gpu for gpu in gpus if number == 1 or not is_mig(gpu.uuid)]


def is_mig(uuid: str) -> bool:
    """Return whether a UUID names a MIG instance; CUDA lets a process use only one."""
    return uuid.startswith("MIG-")


def resolve(kind: str) -> str:
    """Return `gpu` for `auto` where an NVIDIA GPU can be used, else `cpu`; other kinds as given."""
    if kind != "auto":
        return kind
    return os.environ.get(AUTO) or ("gpu" if count() else "cpu")


def count() -> int:
    """Return the number of NVIDIA GPUs that this process may use, without initializing CUDA."""
    return len(available())


def available() -> list[Gpu]:
    """Return the NVIDIA GPUs that this process may use, in the order of CUDA_VISIBLE_DEVICES.

    Its numbers count as the driver does, by PCI bus id. A GPU that was lost is left out.
    """
    visible = os.environ.get(VISIBLE)
    if visible is not None and not visible.strip():
        return []
    import pynvml

    try:
        pynvml.nvmlInit()
        numbers = range(pynvml.nvmlDeviceGetCount())
        handles = [each for number in numbers for each in _handles(number)]
        known = {pynvml.nvmlDeviceGetUUID(each): each for each in handles}
    except pynvml.NVMLError:
        return []
    return [gpu for uuid in _select(visible, list(known)) for gpu in _describe(uuid, known[uuid])]


def handle(uuid: str) -> Any:
    """Return NVML's handle of a GPU.

    Raises:
        pynvml.NVMLError: there is none with that UUID, or it was lost.
    """
    import pynvml

    pynvml.nvmlInit()
    return pynvml.nvmlDeviceGetHandleByUUID(uuid)


def describe(kind: str, threads: int, number: int) -> dict[str, Any]:
    """Return the devices of a run for its record.

    Args:
        kind: `cpu` or `gpu`.
        threads: of each device's process.
        number: of devices.

    Returns:
        `kind`, `name`, `devices`, `threads`, and a GPU's `driver`.
    """
    counts = {"devices": number, "threads": threads}
    if kind == "cpu":
        from assay.runs import environment

        return {"kind": kind, "name": environment.processor(), **counts}
    import torch

    name = torch.cuda.get_device_name()
    return {"kind": kind, "name": name, **counts, "driver": _driver()}


def processes(handle: Any) -> tuple[int, ...]:
    """Return the ids of processes that compute on a GPU; none where NVML does not report them."""
    running = _ask(lambda nvml: nvml.nvmlDeviceGetComputeRunningProcesses(handle), ())
    return tuple(process.pid for process in running)


def _select(visible: str | None, uuids: list[str]) -> list[str]:
    """Return the UUIDs of CUDA_VISIBLE_DEVICES, up to the first unknown one, as CUDA does."""
    if visible is None:
        return uuids
    selected: list[str] = []
    for word in (word.strip() for word in visible.split(",")):
        if word.isdigit():
            matches = uuids[int(word) : int(word) + 1]
        else:
            matches = [uuid for uuid in uuids if word and uuid.startswith(word)]
        if len(matches) != 1 or matches[0] in selected:
            break
        selected += matches
    return selected


def _handles(number: int) -> list[Any]:
    """Return the handle of a GPU, or those of its MIG instances; none if it was lost."""
    import pynvml

    try:
        board = pynvml.nvmlDeviceGetHandleByIndex(number)
        pynvml.nvmlDeviceGetUUID(board)
    except pynvml.NVMLError:
        return []
    try:
        has_mig, _ = pynvml.nvmlDeviceGetMigMode(board)
    except pynvml.NVMLError:
        has_mig = False
    return _mig_handles(board) if has_mig else [board]


def _mig_handles(board: Any) -> list[Any]:
    import pynvml

    handles = []
    for number in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(board)):
        try:
            handles.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(board, number))
        except pynvml.NVMLError:
            continue
    return handles


def _describe(uuid: str, handle: Any) -> list[Gpu]:
    import pynvml

    try:
        name = pynvml.nvmlDeviceGetName(handle)
        graphics = _ask(lambda nvml: nvml.nvmlDeviceGetGraphicsRunningProcesses(handle), ())
        return [Gpu(uuid, name, _used_bytes(handle), processes(handle), bool(graphics))]
    except pynvml.NVMLError:
        return []


def _used_bytes(handle: Any) -> int:
    """Return the memory that programs use on a GPU; 0 if it has no memory of its own."""
    import pynvml

    try:
        try:
            return pynvml.nvmlDeviceGetMemoryInfo(handle, pynvml.nvmlMemory_v2).used
        except (pynvml.NVMLError_FunctionNotFound, pynvml.NVMLError_ArgumentVersionMismatch):
            return pynvml.nvmlDeviceGetMemoryInfo(handle).used  # includes the driver's reserve
    except pynvml.NVMLError_NotSupported:
        return 0


def _driver() -> str | None:
    def version(nvml: Any) -> str:
        nvml.nvmlInit()
        return nvml.nvmlSystemGetDriverVersion()

    return _ask(version, None)


def _ask(query: Callable[[Any], Any], default: Any) -> Any:
    """Return NVML's answer, or a default where it has none."""
    import pynvml

    try:
        return query(pynvml)
    except pynvml.NVMLError:
        return default
