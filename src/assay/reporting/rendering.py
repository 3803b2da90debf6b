"""Style and files of figures: equal numbers give equal bytes."""

import inspect
import io
from pathlib import Path

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib import pyplot as plt

from assay.reporting import figures
from assay.reporting.tables import Tables

STYLE = {
    "font.size": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 9,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "svg.fonttype": "none",
    "svg.hashsalt": "assay",
    "pdf.fonttype": 42,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
}
TEXT_COLOURS = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color",
                "grid.color")  # fmt: skip


def draw(tables: Tables, name: str, folder: Path) -> dict[str, str]:
    """Draw a figure and write it as PDF and SVG.

    Returns:
        `name`, `caption`, and `svg` for the page, whose text colour it takes.
    """
    function = getattr(figures, name)
    np.random.seed(0)  # seaborn takes the jitter of points from numpy's global state
    sns.set_theme(style="white", rc=STYLE | dict.fromkeys(TEXT_COLOURS, figures.INK))
    figure = _empty() if tables.complete.empty else function(tables)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.pdf", bbox_inches="tight", metadata={"CreationDate": None})
    text = io.StringIO()
    figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    (folder / f"{name}.svg").write_text(text.getvalue())
    inline = text.getvalue().replace(figures.INK, "currentColor")
    caption = " ".join((inspect.getdoc(function) or name).split())
    return {"name": name, "caption": caption, "svg": inline[inline.index("<svg") :]}


def _empty() -> matplotlib.figure.Figure:
    figure, axes = plt.subplots(figsize=(figures.WIDTH_INCHES, 1))
    axes.text(0.5, 0.5, "no run is complete yet", ha="center", va="center")
    axes.set_axis_off()
    return figure
