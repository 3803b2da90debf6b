"""The figures of a report: a function each, whose first line of text is the caption."""

import matplotlib

matplotlib.use("agg")
import pandas as pd
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from assay import statistics
from assay.tables import Tables

INK = "#010203"
WIDTH_INCHES = 5.2
PHASES = ("import", "data", "build", "train", "validate", "predict", "write", "rest")


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
    axes.set(ylabel="", xlabel=f"test {metric}")
    if metric == "accuracy":
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    return figure


def learning_curves(tables: Tables) -> Figure:
    """Validation score over training seconds, pretraining included: mean over seeds and 95% band.

    A curve that starts late starts after its pretraining. Time axis logarithmic.
    """
    labels = tables.summary.set_index("experiment")["labels_per_class"].astype(str)
    history = tables.history.assign(labels=tables.history["experiment"].map(labels))
    groups = list(dict.fromkeys(history["labels"]))
    figure, panels = plt.subplots(
        len(groups), 1, figsize=(WIDTH_INCHES, 2.7 * len(groups) + 0.3), squeeze=False, sharex=True
    )
    colours = dict(zip(labels.index, sns.color_palette("colorblind", len(labels)), strict=True))
    for group, axes in zip(groups, panels[:, 0], strict=True):
        for name, rows in history[history["labels"] == group].groupby("experiment", sort=False):
            by_step = rows.groupby("step")
            seconds, value = by_step["seconds"].mean(), by_step["value"].mean()
            estimates = [statistics.mean(values.tolist()) for _, values in by_step["value"]]
            band = [estimate.high - estimate.mean for estimate in estimates]
            axes.plot(seconds, value, color=colours[name], label=name, linewidth=1.6)
            axes.fill_between(
                seconds, value - band, value + band, color=colours[name], alpha=0.18, linewidth=0
            )
        axes.set_xscale("log")
        plural = "all labels" if group == "all" else f"{group} labels per class"
        axes.set_title(plural, fontsize=9, loc="left")
        axes.set_ylabel(history["monitor"].iloc[0].replace("_", " "))
        axes.set_ylim(top=min(1.01, axes.get_ylim()[1]) if tables.metric == "accuracy" else None)
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    panels[-1, 0].set_xlabel("training seconds, pretraining included")
    return figure


def wall_time(tables: Tables) -> Figure:
    """What a job's wall time was spent on: mean seconds per run, by stage.

    `import` is the start of Python and of the libraries; `train` alone counts as training.
    """
    done = tables.runs[tables.runs["status"] == "complete"]
    label = done["stage"] + "  " + done["name"]
    columns = [f"{phase}_seconds" for phase in PHASES]
    means = done.groupby(label, sort=False)[columns].mean()
    means.columns = list(PHASES)
    figure, axes = plt.subplots(figsize=(WIDTH_INCHES, 0.3 * len(means) + 1.4))
    start = pd.Series(0.0, index=means.index)
    for phase, colour in zip(PHASES, sns.color_palette("colorblind", len(PHASES)), strict=True):
        axes.barh(means.index, means[phase], left=start, color=colour, label=phase, height=0.7)
        start = start + means[phase]
    axes.invert_yaxis()
    axes.set(xlabel="seconds of wall time per run", ylabel="")
    axes.legend(
        ncols=4, frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(-0.35, 1.0)
    )
    return figure
