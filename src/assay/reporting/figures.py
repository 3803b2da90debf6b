"""The figures of a report: a function each, whose first line of text is the caption."""

import matplotlib

matplotlib.use("agg")
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from assay.reporting import formatting, statistics
from assay.reporting.tables import Tables
from assay.runs import metrics
from assay.runs.ledger import PHASES

INK, GREY = "#010203", "#555555"
WIDTH_INCHES = 5.2


def scores(tables: Tables) -> Figure:
    """Each seed's score on the test examples (points), and the mean with its 95% interval.

    The interval is Student's t over seeds, as in the table.
    """
    metric = tables.metric
    done = tables.results[tables.results["status"] == "complete"]
    order = [name for name in tables.summary["experiment"] if name in set(done["experiment"])]
    figure, axes = plt.subplots(figsize=(WIDTH_INCHES, 0.42 * len(order) + 0.9))
    sns.stripplot(
        done, x=metric, y="experiment", hue="experiment", order=order, hue_order=order,
        palette="colorblind", size=4.5, alpha=0.6, jitter=0.12, ax=axes, legend=False,
    )  # fmt: skip
    summary = tables.summary.set_index("experiment").loc[order]
    for place, row in enumerate(summary.itertuples()):
        centre, low, high = (getattr(row, f"{metric}_{part}") for part in ("mean", "low", "high"))
        if low == low:
            axes.plot([low, high], [place + 0.26] * 2, color=INK, linewidth=1.4)
        axes.plot(centre, place + 0.26, "|", color=INK, markersize=9, markeredgewidth=2)
    axes.set(ylabel="", xlabel=f"test {metric.replace('_', ' ')}")
    if metrics.is_share(metric):
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def learning_curves(tables: Tables) -> Figure:
    """Validation score over the seconds of training after the pretraining: mean and 95% band.

    The legend says how long the pretraining before a curve took, on average over seeds.
    """
    history, summary = tables.history, tables.summary.set_index("experiment")
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
        axes.set_title(formatting.amount(tables, group), fontsize=9, loc="left")
        axes.set_ylabel(history["monitor"].iloc[0].replace("_", " "))
        falls = metrics.better(history["monitor"].iloc[0]) == "lower"
        axes.legend(frameon=False, fontsize=8, loc="upper right" if falls else "lower right")
    panels[-1, 0].set_xlabel("training seconds after the pretraining")
    figure.tight_layout()
    return figure


def _curve(axes: Axes, history: pd.DataFrame, name: str, colour: tuple) -> None:
    """One experiment's mean over seeds with its band."""
    by_step = history.groupby("step")
    seconds = by_step["seconds"].mean()
    estimates = [statistics.mean(values.tolist()) for _, values in by_step["value"]]
    before = history["pretraining_seconds"].mean()
    label = f"{name}, after {before:.1f} s" if before else name
    axes.plot(seconds, [e.mean for e in estimates], color=colour, label=label, linewidth=1.6)
    least, greatest = metrics.bounds(history["monitor"].iloc[0].removeprefix("validation_"))
    lows = [max(estimate.low, least) for estimate in estimates]
    highs = [min(estimate.high, greatest) for estimate in estimates]
    axes.fill_between(seconds, lows, highs, color=colour, alpha=0.15, linewidth=0)


def wall_time(tables: Tables) -> Figure:
    """What a job's wall time was spent on: mean seconds per run, by stage.

    Import is the start of Python and of the libraries; train is the optimisation steps, without
    their waiting for batches (data_wait).
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
