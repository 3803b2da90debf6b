"""Data sets, models and objectives: one file each, found by its name."""

import importlib
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parent
KINDS = {"dataset": "datasets", "model": "models", "objective": "objectives"}


def names(kind: str) -> list[str]:
    """The names one can choose from: the files of a folder."""
    files = (FOLDER / KINDS[kind]).glob("*.py")
    return sorted(path.stem for path in files if not path.stem.startswith("_"))


def path(kind: str, name: str) -> Path:
    """The file of a plug-in."""
    return FOLDER / KINDS[kind] / f"{name}.py"


def load(kind: str, name: str) -> ModuleType:
    """Import a plug-in."""
    return importlib.import_module(f"assay.{KINDS[kind]}.{name}")


def class_name(objective: str) -> str:
    """The class in an objective's file: `masked_image` -> `MaskedImage`."""
    return "".join(part.capitalize() for part in objective.split("_"))
