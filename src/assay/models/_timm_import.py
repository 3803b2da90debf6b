"""Import timm without torchvision, which its networks do not need.

timm imports torchvision at the top of modules that read images, and names one of its classes in its
normalisation layers. `make extras` does not install torchvision, because a version built for
another PyTorch prevents PyTorch Lightning from being imported. Placeholder modules take its place,
only during the import.
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


class _PlaceholderType(type):
    """Metaclass of placeholder classes: every attribute is another placeholder class."""

    def __getattr__(cls, name: str) -> Any:
        return _placeholder(name)


class _PlaceholderModule(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return _placeholder(name)


def _placeholder(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return _PlaceholderType(name, (), {})


def import_timm() -> ModuleType:
    """Import timm, with or without torchvision.

    Raises:
        ImportError: timm is not installed.
    """
    with _placeholder_torchvision():
        import timm
    return timm


@contextmanager
def _placeholder_torchvision() -> Iterator[None]:
    if importlib.util.find_spec("torchvision"):
        yield
        return
    for name in MODULES:
        sys.modules[name] = _PlaceholderModule(name)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, sys.modules[name])
    try:
        yield
    finally:
        for name in MODULES:
            del sys.modules[name]
