"""Figures of notebooks 01 and 02: the derivation, checked by numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from experiments.figures import theme


def drift(
    steps: Sequence[int],
    errors: Mapping[str, Sequence[float]],
    predictions: Sequence[Sequence[float]],
) -> Figure:
    """Plot the error of running a floating-point recurrence backwards.

    ``errors`` holds for each label the largest error of h and c after each number of steps undone,
    ``predictions`` the part of some of them that the decay alone explains.
    """
    figure, axes = plt.subplots()
    theme.curves(axes, steps, errors)
    for index, values in enumerate(predictions):
        label = "" if index else r"rounding error $\times\; u^{-n}$"
        theme.guide(axes, steps, values, label=label, linewidth=0.7)
    theme.frame(axes, "steps undone, $n$", "largest error of h, c", log="xy")
    axes.set_ylim(top=1e4)
    theme.legend_above(figure, axes)
    return figure


def division(u: Sequence[float], errors: Mapping[str, Sequence[float]]) -> Figure:
    """Plot the relative error of du, NaN where du is NaN, for each way to compute it.

    The recurrent weights ``u``, powers of ten and 0, are drawn as categories.
    """
    figure, axes = plt.subplots()
    places = range(len(u))
    for row, (label, values) in enumerate(errors.items()):
        [line] = axes.plot(places, values, label=label)
        for place in (place for place, value in enumerate(values) if math.isnan(value)):
            axes.text(place, 0.93 - 0.08 * row, "NaN", ha="center", color=line.get_color(), size=7,
                      transform=axes.get_xaxis_transform())  # fmt: skip
    axes.set_xticks(places, [_power_of_ten(x) for x in u])
    theme.frame(axes, "recurrent weight, $u$", "largest relative error of du", log="y")
    axes.set_ylim(top=1e4)
    axes.legend()
    return figure


def _power_of_ten(x: float) -> str:
    """Label every second tick, as there is no room for all."""
    if x == 0:
        return "0"
    exponent = round(math.log10(x))
    return "" if exponent % 2 else f"$10^{{{exponent}}}$"


def accuracy(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Compare float32 gradients of the kernel and of eager PyTorch with float64.

    Rows have ``steps``, ``tensor`` and the relative errors ``ours_median``, ``ours_max``,
    ``eager_median`` and ``eager_max``.
    """
    lengths = sorted({row["steps"] for row in rows})
    figure, panels = plt.subplots(
        1, len(lengths), figsize=(theme.COLUMN * len(lengths), 2.6), sharex=True, squeeze=False
    )
    for axes, steps in zip(panels[0], lengths, strict=True):
        chosen = [row for row in rows if row["steps"] == steps]
        for offset, (key, label) in enumerate((("ours", "kernel"), ("eager", "eager PyTorch"))):
            heights = [place + 0.3 * (offset - 0.5) for place in range(len(chosen))]
            low, high = ([row[f"{key}_{end}"] for row in chosen] for end in ("median", "max"))
            marker, colour = theme.MARKERS[offset], theme.COLOURS[offset]
            axes.hlines(heights, low, high, color=colour, linewidth=0.8)
            axes.plot(low, heights, marker, color=colour, label=f"{label}, median unit")
            axes.plot(high, heights, marker, color=colour, label=f"{label}, worst unit",
                      fillstyle="none")  # fmt: skip
        theme.bar_rows(axes, [f"${row['tensor']}$" for row in chosen])
        axes.set(xscale="log", xlabel="relative error of the gradient", title=f"T = {steps}")
        axes.grid(True, axis="x")
    theme.legend_above(figure, panels[0, 0])
    return figure


def saturation(
    steps: Sequence[int], abs_c: Sequence[float], bound: Sequence[float], slope: Sequence[float]
) -> Figure:
    """Plot the growth of the cell state, and the slope through which its couplings learn.

    All are medians over the units: abs(c_T), its ``bound``, and the slope f'(c_T).
    """
    figure, (growth, learning) = plt.subplots(2, 1, figsize=(theme.COLUMN, 3.2), sharex=True)
    theme.guide(growth, steps, bound, label=r"$|c_0| + T\,\sum_i |a_i|$")
    growth.plot(steps, abs_c, label="$|c_T|$")
    theme.frame(growth, ylabel="cell state, median", log="y")
    growth.legend()
    learning.plot(steps, slope)
    theme.frame(learning, "steps, $T$", "slope $f'(c_T)$, median", log="x")
    return figure


def gradient_errors(errors: Mapping[str, Mapping[int, Mapping[str, float]]]) -> Figure:
    """Plot errors of the gradient against the length: a panel for each memory of the units.

    ``errors`` holds for each memory and length the relative error of each strategy.
    """
    figure, panels = plt.subplots(1, len(errors), figsize=(4.5, 2.4), sharey=True)
    for axes, (memory, by_steps) in zip(panels, errors.items(), strict=True):
        strategies = next(iter(by_steps.values()))
        lines = {name: [row[name] for row in by_steps.values()] for name in strategies}
        theme.curves(axes, list(by_steps), lines)
        theme.frame(axes, "steps, $T$", log="xy")
        axes.set_title(memory if "=" in memory else f"memories {memory}")
    panels[0].set_ylabel("relative error of the gradient")
    panels[0].legend()
    return figure


def oscillators(
    drawn: Mapping[str, Sequence[Sequence[float]]], tau: Sequence[float], border: Sequence[float]
) -> Figure:
    """Plot where drawn units oscillate, in the plane of time constant and period.

    ``drawn`` holds for each way to draw them tau, the period and whether the unit is overdamped,
    of each unit; ``border`` the longest period that turns at each ``tau``.
    """
    figure, panels = plt.subplots(1, len(drawn), sharey=True)
    looks = {"oscillates": theme.MARKERS[0], "overdamped": theme.MARKERS[-1]}
    for axes, (title, units) in zip(panels, drawn.items(), strict=True):
        if axes is panels[0]:  # where a is that of the period, whatever tau is
            theme.guide(axes, tau, border, label=r"border for $a = 2\,\sin(\pi/P)$")
        for is_overdamped, (label, marker) in enumerate(looks.items()):
            points = [(x, y) for x, y, kind in zip(*units, strict=True) if kind == is_overdamped]
            look = {"color": theme.COLOURS[is_overdamped], "markersize": 2.2, "markeredgewidth": 0}
            axes.plot([x for x, _ in points], [y for _, y in points], marker, label=label, **look)
        theme.frame(axes, r"time constant, $\tau$ (steps)", log="xy")
        axes.set_title(title)
    panels[0].set_ylabel("period, $P$ (steps)")
    panels[0].set_ylim(5, 1200)
    theme.legend_above(figure, panels[0])
    return figure


def resonance(steps: Sequence[int], norms: Mapping[str, Sequence[float]]) -> Figure:
    """Plot the norm of states that turn by another angle in each step, over that at the start.

    ``norms`` holds for each way to turn them the median over the units after each number of steps.
    """
    figure, axes = plt.subplots()
    theme.curves(axes, steps, norms)
    theme.frame(axes, "steps, $t$", r"$|s_t|\,/\,|s_0|$, median", log="xy")
    axes.set_ylim(0.1, 1e12)
    theme.legend_above(figure, axes, ncols=1)
    return figure
