"""Studies that are edited, and the report of what is wrong with them."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.checkout import tiny_study

from assay.study import loading

Edits = dict[str, Any]  # path of a key, such as `finetune/steps` -> its new value
DELETE = object()


def edited(edits: Edits) -> dict[str, Any]:
    """Return a study that runs in seconds, after edits."""
    study = tiny_study()
    for path, value in edits.items():
        *parents, last = path.split("/")
        section = study
        for parent in parents:
            section = section[parent]
        if value is DELETE:
            del section[last]
        else:
            section[last] = value
    return study


def errors(path: Path, edits: Edits) -> str:
    """Return the report of all errors of an edited study, which is written to a file."""
    path.write_text(yaml.safe_dump(edited(edits), sort_keys=False))
    return refusal(path)


def refusal(path: Path, changes: dict[str, Any] | None = None) -> str:
    """Return the report of all errors of a study that cannot run."""
    with pytest.raises(loading.StudyError) as caught:
        loading.read(path, changes)
    return str(caught.value)
