"""Which devices a study can run on, and what they are called."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

KINDS = ("cpu", "gpu")
VISIBLE = "CUDA_VISIBLE_DEVICES"
AUTO = "ASSAY_DEVICE"  # what `auto` means: jobs of a cluster get it from the one who plans


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU, or a part of one that is treated as one (MIG).

    Attributes:
        uuid: its name for CUDA and NVML, `GPU-...` or `MIG-...`.
        used_bytes: of its memory.
        processes: ids of those that compute on it, as far as they can be seen from here.
        draws: whether it has a screen to draw on, which takes memory and disturbs nobody.
    """

    uuid: str
    name: str
    used_bytes: int
    processes: tuple[int, ...]
    draws: bool


def usable(found: list[Gpu], number: int) -> list[Gpu]:
    """Those of some GPUs that a training on so many can use."""
    return [gpu for gpu in found if number == 1 or not is_part(gpu.uuid)]


def is_part(uuid: str) -> bool:
    """Whether it names a part of a divided GPU (MIG), of which CUDA gives a process only one."""
    return uuid.startswith("MIG-")


def resolve(kind: str) -> str:
    """`auto` -> `gpu` where an NVIDIA GPU can be used, else `cpu`; other kinds as they are."""
    if kind != "auto":
        return kind
    return os.environ.get(AUTO) or ("gpu" if count() else "cpu")


def count() -> int:
    """How many NVIDIA GPUs this process may use, without touching one."""
    return len(available())


def available() -> list[Gpu]:
    """The NVIDIA GPUs that this process may use, in the order of CUDA_VISIBLE_DEVICES if it is set.

    Numbers count as the driver counts, by place on the bus. A GPU that is lost is left out.
    """
    allowed = os.environ.get(VISIBLE)
    if allowed is not None and not allowed.strip():
        return []
    import pynvml

    try:
        pynvml.nvmlInit()
        found = [handle for number in range(pynvml.nvmlDeviceGetCount()) for handle in _at(number)]
        known = {pynvml.nvmlDeviceGetUUID(handle): handle for handle in found}
    except pynvml.NVMLError:
        return []
    return [gpu for uuid in _allowed(allowed, known) for gpu in _described(uuid, known[uuid])]


def handle(uuid: str) -> Any:
    """NVML's own name for a GPU.

    Raises:
        pynvml.NVMLError: there is none of that name, or it is lost.
    """
    import pynvml

    pynvml.nvmlInit()
    return pynvml.nvmlDeviceGetHandleByUUID(uuid)


def describe(kind: str, threads: int, number: int) -> dict[str, Any]:
    """Devices for the record: `kind`, `name`, how many, CPU `threads` of each, a GPU's `driver`."""
    counts = {"devices": number, "threads": threads}
    if kind == "cpu":
        from assay.runs import environment

        return {"kind": kind, "name": environment.processor(), **counts}
    import torch

    name = torch.cuda.get_device_name()
    return {"kind": kind, "name": name, **counts, "driver": _driver()}


def _allowed(words: str | None, known: dict[str, Any]) -> list[str]:
    """The GPUs that CUDA_VISIBLE_DEVICES names, up to the first that is not there, as CUDA does."""
    if words is None:
        return list(known)
    chosen: list[str] = []
    for word in (word.strip() for word in words.split(",")):
        if word.isdigit():
            named = list(known)[int(word) : int(word) + 1]
        else:
            named = [uuid for uuid in known if word and uuid.startswith(word)]
        if len(named) != 1 or named[0] in chosen:
            break
        chosen += named
    return chosen


def _at(number: int) -> list[Any]:
    """The GPU of a number; its parts where it is divided, nothing where it is lost."""
    import pynvml

    try:
        whole = pynvml.nvmlDeviceGetHandleByIndex(number)
        pynvml.nvmlDeviceGetUUID(whole)
    except pynvml.NVMLError:
        return []
    try:
        divided, _ = pynvml.nvmlDeviceGetMigMode(whole)
    except pynvml.NVMLError:
        divided = False
    return _parts(whole) if divided else [whole]


def _parts(whole: Any) -> list[Any]:
    import pynvml

    found = []
    for number in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(whole)):
        try:
            found.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(whole, number))
        except pynvml.NVMLError:
            continue
    return found


def _described(uuid: str, found: Any) -> list[Gpu]:
    import pynvml

    try:
        name = pynvml.nvmlDeviceGetName(found)
        return [Gpu(uuid, name, _used(found), processes(found), _draws(found))]
    except pynvml.NVMLError:
        return []


def _used(found: Any) -> int:
    """Bytes of a GPU's memory that programs use; 0 where it has none of its own."""
    import pynvml

    try:
        try:
            return pynvml.nvmlDeviceGetMemoryInfo(found, pynvml.nvmlMemory_v2).used
        except (pynvml.NVMLError_FunctionNotFound, pynvml.NVMLError_ArgumentVersionMismatch):
            return pynvml.nvmlDeviceGetMemoryInfo(found).used  # with what the driver reserves
    except pynvml.NVMLError_NotSupported:
        return 0


def _draws(found: Any) -> bool:
    return bool(_told(lambda nvml: nvml.nvmlDeviceGetGraphicsRunningProcesses(found), ()))


def processes(found: Any) -> tuple[int, ...]:
    """Ids of the processes that compute on a GPU, by its handle; none where NVML does not tell."""
    running = _told(lambda nvml: nvml.nvmlDeviceGetComputeRunningProcesses(found), ())
    return tuple(process.pid for process in running)


def _driver() -> str | None:
    def version(nvml: Any) -> str:
        nvml.nvmlInit()
        return nvml.nvmlSystemGetDriverVersion()

    return _told(version, None)


def _told(question: Callable[[Any], Any], otherwise: Any) -> Any:
    """What NVML answers, or something else where it cannot."""
    import pynvml

    try:
        return question(pynvml)
    except pynvml.NVMLError:
        return otherwise
