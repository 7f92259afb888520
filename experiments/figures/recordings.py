"""Figures of whole signals, and of a network that classifies them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.figures import theme


def long_signals(
    recordings: Sequence[np.ndarray], labels: Sequence[str], rate: float, unit: str, title: str
) -> Figure:
    """Plot the beginning of a recording (T,) of each class, a row for each.

    ``rate`` is that of the samples in Hz, ``unit`` what they are measured in.
    """
    size = (theme.PAGE, 1.0 * len(recordings) + 0.5)
    figure, rows = plt.subplots(len(recordings), 1, figsize=size, sharex=True, squeeze=False)
    for axes, values, label in zip(rows[:, 0], recordings, labels, strict=True):
        _trace(axes, values, rate)
        axes.set_ylabel(unit)
        axes.set_title(label, loc="left", size=7, weight="normal")
    rows[0, 0].set_xlim(0, max(map(len, recordings)) / rate)
    rows[-1, 0].set_xlabel("time, s")
    figure.suptitle(title)
    return figure


def _trace(axes: Axes, values: np.ndarray, rate: float) -> None:
    """Draw a signal (T,) against its time in seconds."""
    seconds = np.arange(len(values)) / rate
    axes.plot(seconds, values, "-", color="black", marker="", linewidth=0.5)
    axes.grid(True)


def evidence(
    recordings: Sequence[tuple[str, np.ndarray, np.ndarray, np.ndarray]],
    rate: float,
    unit: str,
    title: str,
) -> Figure:
    """Plot signals, and below each what hiding a part of it takes from the score of its class.

    For each recording, there are a label, the signal (T,), the middles of the parts in seconds and
    the change of the score when that part is hidden.
    """
    size = (theme.PAGE, 1.75 * len(recordings) + 0.4)
    figure, rows = plt.subplots(
        2 * len(recordings), 1, figsize=size, squeeze=False,
        height_ratios=[1, 0.7] * len(recordings),
    )  # fmt: skip
    for index, (label, values, middles, loss) in enumerate(recordings):
        above, below = rows[2 * index : 2 * index + 2, 0]
        _trace(above, values, rate)
        above.set_ylabel(unit)
        above.tick_params(labelbottom=False)
        above.set_title(label, loc="left", size=7, weight="normal")
        width = np.diff(middles).min(initial=len(values) / rate)
        colours = np.where(loss > 0, theme.COLOURS[1], theme.COLOURS[0])
        below.bar(middles, loss, 0.9 * width, color=colours)
        below.axhline(0, color="black", linewidth=0.6, linestyle="-", marker="")
        below.set_ylabel("evidence,\nnats")
        below.grid(True)
        below.set_axisbelow(True)
        for axes in (above, below):
            axes.set_xlim(0, len(values) / rate)
            axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    rows[-1, 0].set_xlabel("time, s")
    figure.align_ylabels()
    figure.suptitle(title)
    return figure


def step_memory(rows: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> Figure:
    """Plot what a training step saves, and what it adds to the process, against T.

    Rows have ``method``, ``steps``, ``saved_bytes`` and ``peak_bytes``; ``labels`` names the
    methods, in the order of drawing.
    """
    figure, panels = plt.subplots(1, 2, figsize=(theme.PAGE, 2.5), sharey=True)
    quantities = {"saved_bytes": "saved between the passes", "peak_bytes": "growth of the peak"}
    for axes, (key, title) in zip(panels, quantities.items(), strict=True):
        for name, label in labels.items():
            mine = [row for row in rows if row["method"] == name]
            steps = [row["steps"] for row in mine]
            theme.curves(axes, steps, {label: [row[key] for row in mine]}, 1e6, fillstyle="none")
        theme.frame(axes, "steps, $T$", log="xy")
        axes.set_title(title)
        ticks = sorted({row["steps"] for row in rows})
        axes.set_xticks(ticks, [f"{x:,}" for x in ticks])
        axes.minorticks_off()
    panels[0].set_ylabel("MB")
    theme.legend_above(figure, panels[0], ncols=len(labels))
    return figure
