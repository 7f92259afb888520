"""The figure of time against peak memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures import theme

#: Label and marker of each kind of measurement, by method, rounds and memories.
_LOOKS: dict[tuple[str, float, str], tuple[str, str]] = {
    ("reversible", 0, "u = 1"): ("reversible, u = 1", "o"),
    ("reversible", 0, "up to 1,000 steps"): ("reversible, memories to 1,000", "s"),
    ("reversible", 0, "up to 10 steps"): ("reversible, memories to 10", "^"),
    ("checkpoint", 1, ""): ("checkpoint", "o"),
    ("checkpoint", 2, ""): ("checkpoint, 2 rounds", "s"),
    ("checkpoint", 3, ""): ("checkpoint, 3 rounds", "^"),
    ("torch_checkpoint", 0, ""): ("torch.utils.checkpoint", "D"),
}
#: The lines of a colour differ, as its markers do.
_LINES = {"o": "-", "s": "--", "^": ":", "D": "-."}
#: Methods without chunks need so much more memory that they are listed as text.
_LARGE = {"recompute": "recompute", "store": "store", "lstm": "nn.LSTM"}


def frontier(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Plot the peak memory of a training step against its time, a panel for each T and B.

    ``rows`` are those of :mod:`experiments.bench.frontier`. A line joins the same method with
    chunks of different length, which are written at the points of reversal with u = 1; dots lie
    between checkpoints of one round and of two.
    """
    sizes = sorted({(row["batch"], row["steps"]) for row in rows})
    columns = min(3, len(sizes))
    figure, places = theme.panels_of(
        len(sizes), columns, [2.3] * math.ceil(len(sizes) / columns), 0.8
    )
    colours = theme.colours_of([label for label, _ in _LOOKS.values()])
    for (batch, steps), axes in zip(sizes, places, strict=True):
        here = [row for row in rows if (row["batch"], row["steps"]) == (batch, steps)]
        for key, (label, marker) in _LOOKS.items():
            points = [_point(row) for row in here if _key(row) == key]
            axes.plot(
                *zip(*points, strict=True) if points else ([], []), label=label,
                color=colours[label], marker=marker, linestyle=_LINES[marker],
                fillstyle="none", linewidth=0.8,
            )  # fmt: skip
        _join_rounds(axes, here, colours["checkpoint"])
        for row in here:
            if _key(row) == ("reversible", 0, "u = 1"):
                axes.annotate(
                    f"$C$ = {row['chunk']}", _point(row), (-7, -5), textcoords="offset points",
                    ha="right", va="top", size=6,
                    path_effects=[patheffects.withStroke(linewidth=1.5, foreground="white")],
                )  # fmt: skip
        axes.margins(0.25)
        theme.frame(axes, "time, µs a step", "growth of the peak, MB", log="xy")
        axes.set_xlim(left=0.5 * axes.get_xlim()[0])  # room for text
        axes.set_ylim(top=2 * axes.get_ylim()[1])
        axes.text(0.97, 0.97, _large(here), transform=axes.transAxes, ha="right", va="top", size=6)
        theme.plain_numbers(axes.xaxis)
        theme.plain_numbers(axes.yaxis)
        axes.set_title(f"$T$ = {steps:,}, $B$ = {batch}")
    theme.legend_above(figure, places[0], ncols=4)
    return figure


def _join_rounds(axes: Axes, rows: Sequence[Mapping[str, Any]], colour: str) -> None:
    """Join checkpoints of one round and of two, by the points between them: a line for each C."""
    few = [row for row in rows if row["method"] == "checkpoint" and row["rounds"] <= 2]
    for chunk in sorted({row["chunk"] for row in few}):
        points = [_point(row) for row in few if row["chunk"] == chunk]
        axes.plot(*zip(*points, strict=True), color=colour, marker=".", linewidth=0.4, alpha=0.6)


def _large(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a line for each method that is not drawn."""
    lines = []
    for row in rows:
        if row["method"] in _LARGE:
            time, peak = _point(row)
            lines.append(f"{_LARGE[row['method']]}: {peak:,.0f} MB, {time:,.0f} µs")
    return "\n".join(lines)


def _key(row: Mapping[str, Any]) -> tuple[str, float, str]:
    reversible = row["method"] == "reversible"
    return row["method"], row["rounds"], row["memories"] if reversible else ""


def _point(row: Mapping[str, Any]) -> tuple[float, float]:
    return 1e6 * row["seconds"] / row["steps"], max(row["peak_bytes"], 1e4) / 1e6
