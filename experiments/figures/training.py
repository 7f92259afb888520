"""Figures of training runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from experiments.figures.theme import COLOURS, COLUMN, GREY, PAGE, frame, legend_above


def learning_curve(history: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Plot loss and accuracy over the epochs.

    Rows have ``epoch``, ``train_loss``, ``train_accuracy``, ``val_loss`` and ``val_accuracy``; the
    last two are None without validation.
    """
    figure, panels = plt.subplots(2, 1, figsize=(COLUMN, 3.2), sharex=True)
    epochs = [row["epoch"] for row in history]
    for axes, quantity in zip(panels, ("loss", "accuracy"), strict=True):
        for part, label in (("train", "training"), ("val", "validation")):
            if history[0][f"{part}_{quantity}"] is not None:
                axes.plot(epochs, [row[f"{part}_{quantity}"] for row in history], label=label)
        frame(axes, ylabel=quantity)
    panels[0].legend()
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
    figure, axes = plt.subplots(figsize=(COLUMN, COLUMN))
    counts = np.asarray(matrix)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
    # The colour is a root of the share: errors of a per cent would not show beside the diagonal.
    axes.imshow(shares**0.5, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.3 else "black"
            axes.text(column, row, f"{count}", ha="center", va="center", size=6, color=colour)
    classes = range(len(counts))
    axes.set_xticks(classes, names)
    axes.set_yticks(classes, names)
    if names:
        axes.tick_params(axis="x", rotation=90)
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
        axes.bar(places, heights, 0.9 * width, label=label, color=COLOURS[index])
    axes.set_xticks(range(len(names)), names)
    axes.set(xlabel="test subject", ylabel="accuracy", ylim=(0, 1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(True, axis="y")
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=len(accuracies))
    axes.set_title(title)
    return figure


def same_training(losses: Mapping[str, Sequence[float]]) -> Figure:
    """Plot the loss of every step for several strategies, and their distance from the first."""
    figure, (axes, apart) = plt.subplots(2, 1, figsize=(COLUMN, 3.6), sharex=True)
    (reference, stored), *_ = losses.items()
    every = max(1, len(stored) // 12)
    for place, (label, values) in enumerate(losses.items()):
        offset = place * every // len(losses)  # curves may lie on each other
        [line] = axes.plot(values, label=label, markevery=(offset, every))
        if label == reference:
            continue
        difference = np.abs(np.subtract(values, stored))
        note = label if difference.any() else f"{label}: 0 in every step"
        look = {"color": line.get_color(), "linestyle": line.get_linestyle()}
        apart.plot(difference, label=note, marker=line.get_marker(), markevery=every, **look)
    apart.set_yscale("symlog", linthresh=1e-8)
    apart.set_ylim(bottom=-5e-9)
    frame(axes, ylabel="loss")
    frame(apart, "optimizer step", f"distance from\n{reference}")
    for panel in (axes, apart):
        panel.legend()
    return figure


def comparison(groups: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Compare test accuracies of runs: a panel for each group, a row for each of its members."""
    sizes = [len(members) for members in groups.values()]
    heights = [max(sizes[place : place + 2]) + 1.5 for place in range(0, len(sizes), 2)]
    figure, places = plt.subplots(
        len(heights), 2, figsize=(PAGE, 0.22 * sum(heights) + 0.5), squeeze=False,
        height_ratios=heights,
    )  # fmt: skip
    for axes in places.flat[len(groups) :]:
        axes.set_visible(False)
    for axes, (title, members) in zip(places.flat, groups.items(), strict=False):
        look: dict[str, Any] = {"linestyle": "", "zorder": 3}
        for place, values in enumerate(members.values()):
            axes.plot(values, [place] * len(values), marker="o", color=COLOURS[0], fillstyle="none",
                      label="a run", **look)  # fmt: skip
            axes.plot([np.mean(values)], [place], marker="|", markersize=11, color=COLOURS[1],
                      label="mean of the runs", **look)  # fmt: skip
        axes.set_yticks(range(len(members)), list(members))
        axes.set_ylim(len(members) - 0.4, -0.6)
        low, high = min(map(min, members.values())), max(map(max, members.values()))
        margin = max(0.01, 0.1 * (high - low))  # small differences must not look large
        axes.set_xlim(low - margin, high + margin)
        axes.set_title(title, loc="left")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(True, axis="x")
    figure.supxlabel("test accuracy", size=8)
    figure.legend(handles=places[0, 0].get_lines()[:2], loc="outside upper right", ncols=2)
    return figure


def race(
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    chance: Mapping[str, float],
) -> Figure:
    """Plot learning curves against the time of training: a panel for each quantity.

    By method, ``panels`` holds minutes, and the quantity on validation data then; ``chance`` is the
    quantity that guessing reaches. Errors have a logarithmic scale, accuracies do not.
    """
    figure, rows = plt.subplots(
        len(panels), 1, figsize=(COLUMN, 1.9 * len(panels) + 0.3), squeeze=False
    )
    for axes, (quantity, methods) in zip(rows[:, 0], panels.items(), strict=True):
        for label, (minutes, values) in methods.items():
            every = max(1, len(minutes) // 12)  # more markers would hide the line
            axes.plot(minutes, values, label=label, markevery=every)
        axes.axhline(chance[quantity], color=GREY, linewidth=0.8, linestyle="--", label="chance")
        is_accuracy = quantity.startswith("accuracy")
        frame(axes, "minutes of training", quantity, log="" if is_accuracy else "y")
        if is_accuracy:
            axes.yaxis.set_major_formatter(PercentFormatter(1))
            axes.set_ylim(0, 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(6))
    legend_above(figure, rows[0, 0], ncols=3)
    return figure
