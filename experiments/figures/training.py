"""Figures of training runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from experiments.figures import theme

#: The least share of wrong answers that is drawn; those below lie there.
LEAST_ERROR = 1e-3
#: Ticks of an axis of accuracies, as shares of wrong answers.
ERROR_TICKS = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.004, LEAST_ERROR)


def learning_curve(
    history: Sequence[Mapping[str, Any]], title: str, score: str = "accuracy"
) -> Figure:
    """Plot the loss over the epochs, the accuracy in training and a score of validation.

    Rows have ``epoch``, ``train_loss``, ``train_accuracy``, ``val_loss`` and ``val_{score}``; the
    last two are None without validation.
    """
    figure, panels = plt.subplots(2, 1, figsize=(theme.COLUMN, 3.2), sharex=True)
    epochs = [row["epoch"] for row in history]
    name = {"mean_f1": "mean F1"}.get(score, score)
    lines = {
        "loss": {"training": "train_loss", "validation": "val_loss"},
        "score": {"accuracy, training": "train_accuracy", f"{name}, validation": f"val_{score}"},
    }
    for axes, (quantity, keys) in zip(panels, lines.items(), strict=True):
        for label, key in keys.items():
            if history[0][key] is not None:
                axes.plot(epochs, [row[key] for row in history], label=label)
        theme.frame(axes, ylabel=quantity)
        axes.legend()
    panels[0].set_title(title)
    panels[1].yaxis.set_major_formatter(PercentFormatter(1))
    panels[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[1].set_xlabel("epoch")
    return figure


def confusion(
    matrix: Sequence[Sequence[int]], title: str, names: Sequence[str] | None = None
) -> Figure:
    """Show a confusion matrix of counts, a row for each true class.

    ``names`` are those of the classes, if they are not their numbers.
    """
    figure, axes = plt.subplots(figsize=(theme.COLUMN, theme.COLUMN))
    counts = np.asarray(matrix)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
    # The colour is a root of the share: errors of a per cent would not show beside the diagonal.
    axes.imshow(shares**0.5, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.3 else "black"
            axes.text(column, row, f"{count}", ha="center", va="center", size=6, color=colour)
    labels = names or [f"{number}" for number in range(len(counts))]
    axes.set_xticks(range(len(counts)), labels, rotation=90 if names else 0)
    axes.set_yticks(range(len(counts)), labels)
    axes.set(xlabel="predicted class", ylabel="true class", title=title)
    return figure


def subjects(accuracies: Mapping[str, Mapping[str, float]], title: str) -> Figure:
    """Plot the accuracy on the recordings of each subject, none of whom was trained on.

    For each method, the accuracy is given by subject; the subjects are the same for all.
    """
    figure, axes = plt.subplots()
    names = list(next(iter(accuracies.values())))
    width = 0.8 / len(accuracies)
    for index, (label, by_subject) in enumerate(accuracies.items()):
        offset = width * (index - (len(accuracies) - 1) / 2)
        places, heights = np.arange(len(names)) + offset, [by_subject[name] for name in names]
        axes.bar(places, heights, 0.9 * width, label=label, color=theme.COLOURS[index])
    axes.set_xticks(range(len(names)), names)
    axes.set(xlabel="test subject", ylabel="accuracy", ylim=(0, 1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(True, axis="y")
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper right", ncols=len(accuracies))
    axes.set_title(title, loc="left")
    return figure


def same_training(losses: Mapping[str, Sequence[float]]) -> Figure:
    """Plot the loss of every step for several strategies, and their distance from the first."""
    figure, (axes, apart) = plt.subplots(2, 1, figsize=(theme.COLUMN, 3.6), sharex=True)
    (reference, stored), *_ = losses.items()
    every, colours = max(1, len(stored) // 12), theme.colours_of(losses)
    for place, (label, values) in enumerate(losses.items()):
        offset = place * every // len(losses)  # curves may lie on each other
        [line] = axes.plot(values, label=label, color=colours[label], markevery=(offset, every))
        if label == reference:
            continue
        difference = np.abs(np.subtract(values, stored))
        note = label if difference.any() else f"{label}: 0 in every step"
        apart.plot(difference, label=note, markevery=every, color=line.get_color(),
                   linestyle=line.get_linestyle(), marker=line.get_marker())  # fmt: skip
    apart.set_yscale("symlog", linthresh=1e-8)
    apart.set_ylim(bottom=-5e-9)
    theme.frame(axes, ylabel="loss")
    theme.frame(apart, "optimizer step", f"distance from\n{reference}")
    axes.legend()
    apart.legend(loc="lower right", bbox_to_anchor=(1, 0.08))  # between 0 and what grows
    return figure


def comparison(groups: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Compare accuracies of runs: a panel for each group, a row for each of its members.

    All panels have one axis, logarithmic in the error: 98 and 99 % are as far apart as 80 and 90 %.
    The better is on the right.
    """
    sizes = [len(members) for members in groups.values()]
    heights = [0.26 * (max(sizes[row : row + 2]) + 1.5) for row in range(0, len(sizes), 2)]
    figure, places = theme.panels_of(len(groups), 2, heights, 0.5)
    runs = [x for rows in groups.values() for values in rows.values() for x in values]
    least, most = max(LEAST_ERROR, 1 - max(runs)), max(LEAST_ERROR, 1 - min(runs))
    for axes, (title, members) in zip(places, groups.items(), strict=True):
        for place, values in enumerate(members.values()):
            missed = np.maximum(1 - np.array(values), LEAST_ERROR)
            axes.plot(missed, [place] * len(missed), "o", color=theme.COLOURS[0],
                      fillstyle="none", zorder=3, label="a run")  # fmt: skip
            mean = max(LEAST_ERROR, 1 - sum(values) / len(values))
            axes.plot([mean], [place], "|", markersize=11, color=theme.COLOURS[1],
                      zorder=3, label="mean of the runs")  # fmt: skip
        theme.bar_rows(axes, [fill(label, 37) for label in members])
        axes.set_ylim(len(members) - 0.4, -0.6)
        axes.set_xscale("log")
        axes.set_xlim(1.3 * most, least / 1.3)
        axes.set_xticks([x for x in ERROR_TICKS if least / 1.2 < x < 1.2 * most])
        axes.xaxis.set_major_formatter(FuncFormatter(_accuracy_at))
        axes.tick_params(axis="x", labelsize=6)  # so that labels do not touch
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_title(title, loc="left")
        axes.grid(True, axis="x")
    figure.supxlabel("test accuracy, % (better to the right)", size=8)
    figure.legend(handles=places[0].get_lines()[:2], loc="outside upper right", ncols=2)
    return figure


def _accuracy_at(error: float, _: int) -> str:
    return f"{'≥ ' if error <= LEAST_ERROR else ''}{100 * (1 - error):.4g}"


def expected_best(methods: Mapping[str, tuple[Sequence[float], float]]) -> Figure:
    """Plot the expected best of n trials of a search against n, and against processor time.

    By method, there are the expected best of 1, 2, ... trials, and the minutes of a trial.
    """
    figure, panels = plt.subplots(1, 2, figsize=(theme.PAGE, 2.6), sharey=True)
    for label, (best, minutes) in methods.items():
        trials = np.arange(1, 1 + len(best))
        for axes, places in zip(panels, (trials, minutes * trials), strict=True):
            axes.plot(places, best, label=label)
    theme.frame(panels[0], "trials, each of as many updates", "expected best, validation")
    theme.frame(panels[1], "minutes of processor time", log="x")
    panels[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    theme.legend_above(figure, panels[0], ncols=4)
    return figure


def bits(panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]) -> Figure:
    """Plot test accuracy against the bits that a unit forgets in a step: a panel for each task.

    By recurrence, ``panels`` holds bits and accuracy of each run.
    """
    # Three panels of this width fill a page.
    figure, row = plt.subplots(1, len(panels), figsize=(2.25 * len(panels), 2.4), squeeze=False)
    labels = list(dict.fromkeys(label for recurrences in panels.values() for label in recurrences))
    for axes, (title, recurrences) in zip(row[0], panels.items(), strict=True):
        for place, label in enumerate(labels):  # all in each panel, for the legend
            forgotten, accuracies = zip(*recurrences.get(label, [(np.nan, np.nan)]), strict=True)
            colour, marker = theme.COLOURS[place], theme.MARKERS[place]
            style = {"fillstyle": "none", "linestyle": "none", "color": colour}
            axes.plot(forgotten, accuracies, marker, label=label, **style)
        theme.frame(axes)
        axes.set_title(title, loc="left")
        axes.set_xscale("symlog", linthresh=0.01)
        axes.set_xlim(left=-0.002)
        axes.set_xticks([0, 0.01, 0.1, 1], ["0", "0.01", "0.1", "1"])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.4g}"))
    row[0, 0].set_ylabel("test accuracy, %")
    figure.supxlabel("bits forgotten per unit and step", size=8)
    theme.legend_above(figure, row[0, 0], ncols=2)
    return figure
