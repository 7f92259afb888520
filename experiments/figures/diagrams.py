"""Diagrams of the method, which show no measurement."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from experiments.figures import theme

#: What a block consists of, in the order of computing.
_PARTS = ("norm", "$W_{in}$", "$h, c$", "GELU", "$W_{out}$", "GLU")
_RECURRENCE = _PARTS.index("$h, c$")
_LAYERS, _CHUNKS, _AT_HAND = 3, 5, 3
_EMPTY, _GRAPH = "#eeeeee", "#bbbbbb"


def reversal() -> Figure:
    """Draw a gated block, and what strategies keep of a stack while they go back."""
    figure, axes = plt.subplots(1, 4, figsize=(theme.PAGE, 1.6), width_ratios=(1.75, 1, 1, 1))
    _block(axes[0])
    for place, name in zip(
        axes[1:], ("checkpoint", "reversible", "reversible, u = 1"), strict=True
    ):
        _stack(place, name)
    handles = [
        Patch(facecolor=_GRAPH, label="graph of the chunk at hand"),
        Patch(facecolor=_EMPTY, label="not in memory"),
        Line2D([], [], color="black", marker="s", linestyle="", label="states $h, c$ kept"),
        Line2D([], [], color="black", marker="", linestyle="-", linewidth=0.8,
               label="bits that were forgotten"),
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    return figure


def _block(axes: Axes) -> None:
    """Draw the parts of a block from left to right, the recurrence in the colour of reversal."""
    wide, gap = 1.25, 0.35
    ends = [(wide + gap) * index for index in range(len(_PARTS) + 1)]
    for index, (part, left) in enumerate(zip(_PARTS, ends, strict=False)):
        colour = theme.STRATEGIES["reversible"] if index == _RECURRENCE else "white"
        axes.add_patch(Rectangle((left, 0), wide, 1, facecolor=colour, edgecolor="black", lw=0.8))
        text = "white" if index == _RECURRENCE else "black"
        axes.text(left + wide / 2, 0.5, part, ha="center", va="center", size=5.5, color=text)
        _arrow(axes, (left - gap, 0.5), (left, 0.5))
    end = ends[-1]
    axes.text(end - gap + 0.6, 0.5, "+", ha="center", va="center", size=8)
    _arrow(axes, (end - gap, 0.5), (end - gap + 0.4, 0.5))
    _arrow(axes, (end - gap + 0.85, 0.5), (end + gap + 0.4, 0.5))
    over = [(-0.3, 0.5), (-0.3, 1.6), (end - gap + 0.6, 1.6)]
    axes.plot(*zip(*over, strict=True), "-", color="black", marker="", linewidth=0.8)
    _arrow(axes, over[-1], (end - gap + 0.6, 0.75))
    axes.text(-0.55, 0.5, "$x_t$", ha="right", va="center")
    axes.text(end + gap + 0.5, 0.5, "$y_t$", ha="left", va="center")
    middle = ends[_RECURRENCE] + wide / 2
    look = {"arrowstyle": "<-", "connectionstyle": "arc3,rad=1.3", "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (middle + 0.3, 0), (middle - 0.3, 0), arrowprops=look | {"lw": 0.8})
    axes.text(middle, -0.75, "run back", ha="center", va="top", size=6,
              color=theme.STRATEGIES["reversible"])  # fmt: skip
    axes.text(middle, 2.1, "all else is computed again", ha="center", va="bottom", size=6)
    axes.set(xlim=(-1.6, end + 1.8), ylim=(-1.9, 3.0), title="a gated block")
    axes.set_axis_off()


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    look = {"arrowstyle": "-|>,head_width=0.15,head_length=0.3", "lw": 0.8, "color": "black"}
    axes.annotate("", end, start, arrowprops=look | {"shrinkA": 0, "shrinkB": 0})


def _stack(axes: Axes, name: str) -> None:
    """Draw layers over chunks, and what a strategy keeps when it goes back through one of them."""
    colour = theme.colours_of([name])[name]
    for layer in range(_LAYERS):
        for chunk in range(_CHUNKS):
            face = _GRAPH if chunk == _AT_HAND else _EMPTY
            axes.add_patch(Rectangle((chunk, layer), 1, 1, facecolor=face, edgecolor="white", lw=1))
            if name == "reversible" and chunk <= _AT_HAND:
                lines = [layer + 0.35, layer + 0.5, layer + 0.65]
                axes.hlines(lines, chunk + 0.25, chunk + 0.75, color=colour, linewidth=0.8)
        at = range(_AT_HAND + 1) if name == "checkpoint" else [_AT_HAND + 1]
        axes.plot(at, [layer + 0.5] * len(at), "s", color=colour, clip_on=False)
    _arrow(axes, (_AT_HAND + 1, -0.35), (_AT_HAND, -0.35))
    axes.text(_AT_HAND - 0.1, -0.35, "backward", ha="right", va="center", size=6)
    axes.text(-0.2, _LAYERS / 2, "layers", ha="right", va="center", size=6, rotation=90)
    axes.text(_CHUNKS / 2, -0.85, "chunks of $C$ steps", ha="center", va="top", size=6)
    axes.set(
        xlim=(-0.6, _CHUNKS + 0.1), ylim=(-1.4, _LAYERS), title=name.replace("u = 1", "$u = 1$")
    )
    axes.set_axis_off()
