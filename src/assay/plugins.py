"""Data sets, tokenizers, models and objectives: one file each, found by its name."""

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

FOLDER = Path(__file__).resolve().parent
KINDS = {
    "dataset": "datasets",
    "tokenizer": "tokenizers",
    "model": "models",
    "objective": "objectives",
}
CODE = re.compile(r"([A-Za-z_][\w.]*):[A-Za-z_]\w*")


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


def split(name: str) -> tuple[str, str]:
    """The two parts of `timm:resnet18` or `package.module:Class`; the second is empty in `cnn`."""
    first, _, target = name.partition(":")
    return first, target


def is_own(kind: str, name: str) -> bool:
    """Whether a name stands for something of the user's, as `package.module:Class` does."""
    first, target = split(name)
    return bool(target) and not path(kind, first).is_file()


def is_adapter(kind: str, name: str) -> bool:
    """Whether a name stands for something of another library's, as `timm:resnet18` does."""
    return bool(split(name)[1]) and not is_own(kind, name)


def modules(kind: str, settings: dict[str, Any]) -> list[str]:
    """The modules that a plug-in's settings choose by name: its own, and those of the user's.

    A setting whose value reads `package.module:name` counts as one.
    """
    name = settings["name"]
    own = is_own(kind, name)
    found = ["assay.nn.user_modules" if own else f"assay.{KINDS[kind]}.{split(name)[0]}"]
    named = (value for key, value in settings.items() if key != "name" or own)
    matches = (CODE.fullmatch(value) for value in named if isinstance(value, str))
    return found + [match[1] for match in matches if match]


def class_name(objective: str) -> str:
    """The class in an objective's file: `masked_image` -> `MaskedImage`."""
    return "".join(part.capitalize() for part in objective.split("_"))
