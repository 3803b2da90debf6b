"""Which kind of device a study runs on, and what it is called."""

import os
from typing import Any

KINDS = ("cpu", "gpu")


def resolve(kind: str) -> str:
    """`auto` -> `gpu` where an NVIDIA GPU can be used, else `cpu`; other kinds as they are."""
    if kind != "auto":
        return kind
    return "gpu" if count() else "cpu"


def count() -> int:
    """How many NVIDIA GPUs this process may use, without touching one."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return 0
    import pynvml

    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:
        return 0


def describe(kind: str, threads: int) -> dict[str, Any]:
    """A device for the record: its `kind`, `name`, CPU `threads`, and a GPU's `driver`."""
    if kind == "cpu":
        from assay import environment

        return {"kind": kind, "name": environment.processor(), "threads": threads}
    import torch

    name = torch.cuda.get_device_name()
    return {"kind": kind, "name": name, "threads": threads, "driver": _driver()}


def _driver() -> str | None:
    import pynvml

    try:
        pynvml.nvmlInit()
        return pynvml.nvmlSystemGetDriverVersion()
    except pynvml.NVMLError:
        return None
