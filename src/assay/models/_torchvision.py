"""Lets timm be imported where torchvision is not installed: its networks do not need it.

timm's modules for reading images import torchvision at their top, and its normalisation layers name
one class of it, which no network is built with unless asked to. torchvision itself is not asked
for, since one that was built for another PyTorch stops PyTorch Lightning from being imported.
"""

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

MODULES = (
    "torchvision",
    "torchvision.datasets",
    "torchvision.ops",
    "torchvision.ops.misc",
    "torchvision.transforms",
    "torchvision.transforms.functional",
)


class _Absent(type):
    """A class in place of one of torchvision's: it has any attribute, and is of no use."""

    def __getattr__(cls, name: str) -> Any:
        return _absent(name)


class _Module(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return _absent(name)


def _absent(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Absent(name, (), {})


@contextmanager
def stand_in() -> Iterator[None]:
    """While timm is imported, put empty modules in torchvision's place if it is not installed."""
    if importlib.util.find_spec("torchvision"):
        yield
        return
    for name in MODULES:
        sys.modules[name] = _Module(name)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, sys.modules[name])
    try:
        yield
    finally:
        for name in MODULES:
            del sys.modules[name]
