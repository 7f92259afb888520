"""Figures of notebook 03: a unit that stands still, turns and counts; where a network forgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from experiments.figures import theme


def turning(tokens: Sequence[int], states: Mapping[str, np.ndarray]) -> Figure:
    """Plot states h and c of units, (steps, 2) each by its label, over tokens that they read."""
    figure, rows = plt.subplots(
        len(states), 1, figsize=(theme.PAGE, 1.1 * len(states) + 0.4), sharex=True
    )
    steps = np.arange(1, len(tokens) + 1)
    for axes, (label, values) in zip(np.atleast_1d(rows), states.items(), strict=True):
        for name, column, colour, line in zip("hc", values.T, theme.COLOURS, "-:", strict=False):
            style = {"color": colour, "drawstyle": "steps-mid", "marker": ""}
            axes.plot(steps, column, line, label=name, **style)
        axes.set_title(label, loc="left")
        axes.set_ylabel("state")
        axes.margins(x=0.01)
    axes.set_xticks(steps, map(str, tokens))
    axes.set_xlabel("tokens that are read, step by step")
    theme.legend_above(figure, axes)
    return figure


def forgotten(tokens: Sequence[str], bits: Mapping[str, np.ndarray]) -> Figure:
    """Plot the bits that reversal stores in each step, one panel for each label, under the tokens.

    Steps whose token is empty are blanks.
    """
    figure, rows = plt.subplots(
        len(bits), 1, figsize=(theme.PAGE, 1.2 * len(bits) + 0.4), sharex=True, sharey=True
    )
    steps = np.arange(1, len(tokens) + 1)
    shown = [step for step, token in zip(steps, tokens, strict=True) if token]
    for axes, (label, values) in zip(np.atleast_1d(rows), bits.items(), strict=True):
        axes.bar(steps, values, width=0.8, color=theme.COLOURS[0])
        for step in shown:
            axes.axvline(step, color=theme.COLOURS[1], linewidth=0.6, alpha=0.6, zorder=0)
        axes.set_title(label, loc="left")
        axes.set_ylabel("bits")
        axes.margins(x=0.01)
    axes.set_xticks(shown, [token for token in tokens if token])
    axes.set_xlabel("step, with the symbols that are shown; all others are blanks")
    return figure
