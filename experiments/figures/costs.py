"""Figures of memory and time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from experiments.figures import theme

_OURS = "reversible, u = 1"
Rows = Sequence[Mapping[str, Any]]


def saved_bytes(
    steps: Sequence[int],
    by_steps: Mapping[str, Sequence[float]],
    bound: Sequence[float],
    couplings: Sequence[int],
    by_couplings: Mapping[str, Sequence[float]],
) -> Figure:
    """Plot the bytes saved between forward and backward against T and against R.

    Both mappings are by method, the same in both; NaN where not measured. ``bound`` is the formula
    for ``recompute`` at each T.
    """
    figure, (long, wide) = plt.subplots(2, 1, figsize=(theme.COLUMN, 4.8))
    theme.curves(long, steps, by_steps, unit=1e6, fillstyle="none")
    theme.curves(wide, couplings, by_couplings, unit=1e6, fillstyle="none")
    formula = r"$(\lceil T/K \rceil - 1)\,B\,H\,s$"
    theme.guide(long, steps, np.divide(bound, 1e6), label=formula, linewidth=3, alpha=0.5)
    theme.frame(long, "steps, $T$", "saved, MB", log="xy")
    theme.frame(wide, "couplings, $R$", "saved, MB", log="y")
    wide.xaxis.set_major_locator(MaxNLocator(integer=True))
    theme.legend_above(figure, long)
    return figure


def entropy(
    forgetting: Sequence[float],
    bits: Mapping[str, Sequence[float]],
    stored: Mapping[str, Sequence[float]],
    least: Mapping[str, Sequence[float]],
) -> Figure:
    """Plot the bits on the bit stacks per unit and step, and what two formulas say.

    ``forgetting`` is 1 - abs(u). By label, such as the activation, there are the ``bits`` that were
    counted, those ``stored`` by ``eq:stored``, and the ``least``, by the bound ``eq:forgotten``.
    """
    figure, axes = plt.subplots()
    theme.curves(axes, forgetting, bits, linestyle="", fillstyle="none")
    for index, kind in enumerate(bits):
        labels = ("", "") if index else ("stored, by the formula", "lower bound")
        theme.guide(axes, forgetting, stored[kind], label=labels[0], zorder=0)
        theme.guide(axes, forgetting, least[kind], label=labels[1], linestyle="--", zorder=0)
    theme.frame(axes, "forgetting, $1 - |u|$", "bits per unit and step", log="xy")
    axes.legend()
    return figure


def lengths(rows: Rows) -> Figure:
    """Plot the memory that a training step of a stack adds to a process, and its time, against T.

    Rows have ``line``, which is the label, ``steps``, ``peak_bytes`` and ``seconds``. The memory is
    written where a line ends.
    """
    figure, panels = plt.subplots(1, 2, figsize=(theme.PAGE, 2.7), width_ratios=(3, 2))
    ends = {}
    for label in dict.fromkeys(row["line"] for row in rows):
        mine = [row for row in rows if row["line"] == label]
        steps, peak, seconds = (
            np.array([row[key] for row in mine]) for key in ("steps", "peak_bytes", "seconds")
        )
        for axes, values in zip(panels, (peak, 1e12 * seconds / steps), strict=True):
            theme.curves(axes, steps, {label: values}, unit=1e6, fillstyle="none")
        ends[label] = steps[-1], peak[-1] / 1e6
    for axes, quantity in zip(panels, ("memory, MB", "time per step, µs"), strict=True):
        theme.frame(axes, "steps, $T$", quantity, log="xy")
    theme.plain_numbers(panels[1].yaxis)
    _write_ends(panels[0], ends)
    theme.legend_above(figure, panels[0], ncols=4)
    return figure


def _write_ends(axes: Axes, ends: Mapping[str, tuple[float, float]]) -> None:
    """Write the values at which the longest lines end beside them, and that of the LSTM above."""
    colours = theme.colours_of(ends)
    longest = max(steps for steps, _ in ends.values())
    look: dict[str, Any] = {"textcoords": "offset points", "size": 7, "annotation_clip": False}
    axes.set_xlim(right=8 * longest)  # room for text
    apart = axes.get_ylim()[1] / axes.get_ylim()[0]
    lowest = 0.0
    for label, (steps, value) in sorted(ends.items(), key=lambda end: end[1][1]):
        text = f"{value / 1e3:.1f} GB" if value >= 1e3 else f"{value:.{int(value < 10)}f} MB"
        if steps == longest:
            place = max(value, lowest)
            lowest = place * apart**0.055  # so that one line of text does not cover another
            axes.annotate(text, (steps, place), (5, 0), va="center", color=colours[label], **look)
        elif label == "nn.LSTM":
            axes.annotate(text, (steps, value), (0, 4), ha="center", color=colours[label], **look)


def frontier(rows: Rows) -> Figure:
    """Plot the memory of a training step, and its time, against T: a column for each B and H.

    ``rows`` are those of :func:`experiments.bench.frontier.measure_size`. Times are over that of
    reversal with u = 1 in the same turn; bars join their quartiles. Grey lines add what formulas
    say to the least memory of reversal with u = 1, a chunk's.
    """
    sizes = sorted({(row["batch"], row["hidden"]) for row in rows}, key=lambda size: size[::-1])
    figure, places = plt.subplots(
        2, len(sizes), figsize=(theme.PAGE, 3.9), squeeze=False, height_ratios=(3, 2),
        sharex="col", sharey="row",
    )  # fmt: skip
    labels = list(dict.fromkeys(row["line"] for row in rows))
    for (batch, hidden), memory, time in zip(sizes, *places, strict=True):
        here = [row for row in rows if (row["batch"], row["hidden"]) == (batch, hidden)]
        ours = [row for row in here if row["line"] == _OURS]
        for label, colour in theme.colours_of(labels).items():
            mine = [row for row in here if row["line"] == label]
            look = {"color": colour, "label": label, "fillstyle": "none"}
            peaks = [row["peak_bytes"] / 1e6 for row in mine]
            memory.plot([row["steps"] for row in mine], peaks, **look)
            _draw_ratios(time, mine, ours, look)
        _draw_formulas(memory, here, min(row["peak_bytes"] for row in ours))
        theme.frame(memory, log="xy")
        theme.frame(time, "steps, $T$", log="xy")
        time.xaxis.set_minor_formatter("")
        memory.set_title(f"$B$ = {batch}, $H$ = {hidden}")
    theme.frame(places[0][0], "", "memory, MB")
    theme.frame(places[1][0], "", f"time over that of\n{_OURS}")
    theme.plain_numbers(places[1][0].yaxis)
    theme.legend_above(figure, places[0][0], ncols=4)
    return figure


def _draw_ratios(axes: Axes, mine: Rows, ours: Rows, look: Mapping[str, Any]) -> None:
    """Plot the quartiles of the ratio of times, turn by turn."""
    beside = {row["steps"]: row["runs"] for row in ours}
    quartiles = [
        np.quantile([a["seconds"] / b["seconds"] for a, b in pairs], [0.25, 0.5, 0.75])
        for pairs in (zip(row["runs"], beside[row["steps"]], strict=True) for row in mine)
    ]
    low, middle, high = np.array(quartiles).T if quartiles else np.empty((3, 0))
    spread = [middle - low, high - middle]
    axes.errorbar([row["steps"] for row in mine], middle, spread, capsize=2, **look)


def _draw_formulas(axes: Axes, rows: Rows, chunk: float) -> None:
    """Plot what formulas expect, for the lines whose chunks are as long as those of reversal.

    In more than one round, the backward pass holds as many states again, which it computes.
    """
    label = "one chunk plus states or bits"
    for line in ("checkpoint, 2 rounds", "checkpoint, 3 rounds", "reversible"):
        mine = [row for row in rows if row["line"] == line]
        held = np.array([row["kept_bytes"] for row in mine]) * (1 if line == "reversible" else 2)
        points = [row["steps"] for row in mine], (chunk + held) / 1e6
        theme.guide(axes, *points, label=label, linewidth=3, alpha=0.4, zorder=0)
        label = ""


def crossover(
    steps: Sequence[int],
    lines: Mapping[str, Sequence[float]],
    measured: Mapping[str, tuple[Sequence[int], Sequence[float]]],
) -> Figure:
    """Plot the bits saved per unit and step, by checkpoints and by reversal, against T.

    ``lines`` holds the bits by the formulas: those of checkpoints, and those of reversal by the
    kind of unit, which is written at the end of its line. ``measured`` has pairs of T and bits.
    """
    figure, axes = plt.subplots(figsize=(theme.COLUMN, 2.9))
    look: dict[str, Any] = {"linestyle": "-", "marker": "", "linewidth": 0.9}
    (_, checkpoint), *units = lines.items()
    colours = theme.STRATEGIES | theme.colours_of(measured)
    axes.plot(steps, checkpoint, color=colours["checkpoint"], label="checkpoint, formula", **look)
    for place, (kind, values) in enumerate(units):
        label = None if place else "reversible, formula"  # one for all of them
        axes.plot(steps, values, color=colours["reversible"], label=label, **look)
        axes.annotate(
            kind, (steps[-1], values[-1]), (3, 0), textcoords="offset points", va="center", size=6,
            annotation_clip=False,
        )  # fmt: skip
    for (label, points), marker in zip(measured.items(), theme.MARKERS, strict=False):
        axes.plot(*points, marker, color=colours[label], fillstyle="none", label=label)
    theme.frame(axes, "steps, $T$", "bits saved per unit and step", log="xy")
    theme.legend_above(figure, axes)
    return figure


def speed(panels: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Plot the time of forward plus backward: a panel for each shape.

    Each method has its lower quartile, median and upper quartile in ms. The others of a panel are
    compared with its first method.
    """
    heights = [0.19 * max(map(len, panels.values()))] * math.ceil(len(panels) / 2)
    figure, places = theme.panels_of(len(panels), min(2, len(panels)), heights, 0.6)
    for axes, (title, methods) in zip(places, panels.items(), strict=True):
        low, median, high = np.array(list(methods.values())).T
        colours = [theme.COLOURS[1]] + [theme.COLOURS[5]] * (len(methods) - 1)
        axes.barh(range(len(methods)), median, xerr=[median - low, high - median], height=0.7,
                  capsize=2, color=colours, ecolor="black")  # fmt: skip
        for place, (time, end) in enumerate(zip(median, high, strict=True)):
            ratio = f" ({_significant(time / median[0])} x)" if place else ""
            text = f"{_significant(time)} ms{ratio}"
            axes.text(end + 0.02 * high.max(), place, text, va="center", size=6)
        theme.bar_rows(axes, methods)
        axes.set(xlabel="forward plus backward, ms", title=title)
        axes.set_xlim(right=1.55 * high.max())
    return figure


def _significant(number: float) -> str:
    """Format three significant figures, or all of those before the point."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
