"""The figures of a report: one function each, whose docstring is the caption."""

import matplotlib

matplotlib.use("agg")
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from assay.reporting import conclusion, formatting, statistics
from assay.reporting.tables import Tables
from assay.runs import metrics
from assay.runs.ledger import PHASES

INK, GREY = "#010203", "#555555"
WIDTH_INCHES = 5.2


def scores(tables: Tables) -> Figure:
    """Score of each seed on the test split (points), and the mean with its 95% interval.

    The interval is Student's t over seeds, as in the table.
    """
    score = tables.score
    summary = tables.summary[tables.summary["n"] > 0]
    order = summary["experiment"].tolist()
    figure, axes = plt.subplots(figsize=(WIDTH_INCHES, 0.42 * len(order) + 0.9))
    sns.stripplot(
        tables.complete, x=score, y="experiment", hue="experiment", order=order, hue_order=order,
        palette="colorblind", size=4.5, alpha=0.6, jitter=0.12, ax=axes, legend=False,
    )  # fmt: skip
    for index, estimate in enumerate(summary[score]):
        if estimate.n > 1:
            axes.plot([estimate.low, estimate.high], [index + 0.26] * 2, color=INK, linewidth=1.4)
        axes.plot(estimate.mean, index + 0.26, "|", color=INK, markersize=9, markeredgewidth=2)
    axes.set(ylabel="", xlabel=f"test {formatting.words(tables.metric)}")
    if metrics.is_fraction(tables.metric):
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def learning_curves(tables: Tables) -> Figure:
    """Validation score over the training seconds after the pretraining: mean and 95% band.

    The legend states how long the pretraining before a curve took, on average over seeds.
    """
    history, summary = tables.history, tables.summary.set_index("experiment")
    monitor = history["monitor"].iloc[0]
    names = [name for name in summary.index if name in set(history["experiment"])]
    groups = list(dict.fromkeys(summary.loc[names, "labels_per_class"]))
    colours = dict(zip(names, sns.color_palette("colorblind", len(names)), strict=True))
    figure, panels = plt.subplots(
        len(groups), 1, figsize=(WIDTH_INCHES, 2.6 * len(groups) + 0.3), squeeze=False
    )
    for group, axes in zip(groups, panels[:, 0], strict=True):
        for name in names:
            if summary.loc[name, "labels_per_class"] == group:
                _curve(axes, history[history["experiment"] == name], name, colours[name])
        axes.set_title(conclusion.training_data(tables, group), fontsize=9, loc="left")
        axes.set_ylabel(formatting.words(monitor))
        corner = "lower right" if metrics.higher_is_better(monitor) else "upper right"
        axes.legend(frameon=False, fontsize=8, loc=corner)
    panels[-1, 0].set_xlabel("training seconds after the pretraining")
    figure.tight_layout()
    return figure


def _curve(axes: Axes, history: pd.DataFrame, name: str, colour: tuple) -> None:
    """Draw the mean over seeds of one experiment with its band."""
    by_step = history.groupby("step")
    seconds = by_step["seconds"].mean()
    bounds = metrics.bounds(history["monitor"].iloc[0])
    estimates = [statistics.mean(values.tolist(), *bounds) for _, values in by_step["value"]]
    before = history["pretraining_seconds"].mean()
    label = f"{name}, after {before:.1f} s" if before else name
    axes.plot(seconds, [e.mean for e in estimates], color=colour, label=label, linewidth=1.6)
    lows, highs = ([getattr(e, part) for e in estimates] for part in ("low", "high"))
    axes.fill_between(seconds, lows, highs, color=colour, alpha=0.15, linewidth=0)


def wall_time(tables: Tables) -> Figure:
    """Wall time of a job by phase: mean seconds per run.

    Phase import is the start of Python and its libraries; train is the optimizer steps without the
    time that they waited for batches (data_wait).
    """
    done = tables.runs[tables.runs["status"] == "complete"]
    label = done["stage"] + "  " + done["name"]
    columns = [f"{phase}_seconds" for phase in PHASES]
    means = done.reindex(columns=columns, fill_value=0.0).groupby(label, sort=False).mean()
    means.columns = list(PHASES)
    colours = {"wait": "gainsboro", "data_wait": "black", "other": GREY}
    others = [phase for phase in PHASES if phase not in colours]
    colours |= dict(zip(others, sns.color_palette("colorblind"), strict=True))
    figure, axes = plt.subplots(figsize=(WIDTH_INCHES, 0.3 * len(means) + 1.4))
    start = pd.Series(0.0, index=means.index)
    for phase in (phase for phase in PHASES if means[phase].any()):
        colour = colours[phase]
        axes.barh(means.index, means[phase], left=start, color=colour, label=phase, height=0.7)
        start = start + means[phase]
    axes.invert_yaxis()
    axes.set(xlabel="seconds of wall time per run", ylabel="")
    axes.legend(ncols=4, frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(-0.35, 1.0))
    return figure
