"""Assay: reproducible deep-learning experiments, from the data to the paper's tables."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike

    import pandas as pd

__version__ = "0.1.0"


def load(study: "str | PathLike[str]") -> "pd.DataFrame":
    """Return the results of a study: one row per experiment and seed, as the records are now.

    Args:
        study: the name of a study, such as `digits`; the path of a study's file; or the path of a
            report's folder, whose study may have had values from `--config`.

    Returns:
        Columns: `experiment`, `seed`; the settings in which the experiments differ, with dotted
        names; `status` and `reason`, which says why a run is missing; each metric of the test
        split; seconds of training, memory, energy and cost; `device`; the folders of the runs; and
        `hash`, which identifies the evaluation and everything that it depends on. Runs that are
        not complete have a row without metrics.

    Raises:
        ValueError: there is no such study, or it has errors.

    Example:
        >>> results = assay.load("digits")
        >>> results.groupby("experiment")["accuracy"].agg(["mean", "std"])
    """
    # By name, because runs depend on the files that an import statement in this file names.
    return import_module("assay.commands.load").load(study)
