"""The figure of strategies at several sizes of the state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures import theme

_OURS = "reversible, u = 1"
Rows = Sequence[Mapping[str, Any]]


def frontier(rows: Rows) -> Figure:
    """Plot the memory of a training step, and its time, against T: a column for each B and H.

    ``rows`` are those of :func:`experiments.bench.frontier.measure_size`. Times are over that of
    reversal with u = 1 in the same turn; bars join their quartiles. Grey lines add the bytes that
    formulas expect to be kept to the least memory of reversal with u = 1, a chunk's.
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
    """Plot what formulas expect, for the lines whose chunks are as long as those of reversal."""
    label = "one chunk and what formulas say is kept"
    for line in ("checkpoint, 2 rounds", "checkpoint, 3 rounds", "reversible"):
        mine = [row for row in rows if row["line"] == line]
        kept = np.array([row["kept_bytes"] for row in mine])
        points = [row["steps"] for row in mine], (chunk + kept) / 1e6
        theme.guide(axes, *points, label=label, linewidth=3, alpha=0.4, zorder=0)
        label = ""
