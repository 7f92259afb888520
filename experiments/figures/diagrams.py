"""Diagrams of the method, which show no measurement."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from experiments.figures import theme

#: What a block consists of, in the order of computing.
_PARTS = ("norm", "$W_{in}$", "$h, c$", "GELU", "$W_{out}$", "GLU")
_RECURRENCE = _PARTS.index("$h, c$")
_LAYERS, _CHUNKS = 3, 5
#: The chunk that is about to be rebuilt, and colours: of its graph, and of what is not in memory.
_NEXT = 3
_GRAPH, _AWAY = "#bbbbbb", "#eeeeee"
_SQUARE: dict[str, Any] = {"marker": "s", "linestyle": ""}


def reversal() -> Figure:
    """Draw a gated block, and what strategies keep of a stack while they go back."""
    figure, axes = plt.subplots(1, 4, figsize=(theme.PAGE, 1.65), width_ratios=(1.8, 1, 1, 1))
    _block(axes[0])
    names = ("checkpoint", "reversible", "reversible, u = 1")
    for place, name in zip(axes[1:], names, strict=True):
        _stack(place, name)
    kept = tuple(Line2D([], [], color=theme.STRATEGIES[name], **_SQUARE) for name in names[:2])
    bits = Line2D([], [], color=theme.STRATEGIES["reversible"], marker="", linewidth=0.8)
    entries: dict[str, Any] = {
        "states $h, c$ kept": kept,
        "bits that were forgotten": bits,
        "chunk rebuilt next, with its graph": Patch(facecolor=_GRAPH),
        "not in memory": Patch(facecolor=_AWAY),
        "done": Patch(facecolor="white", edgecolor=_GRAPH, linestyle=":"),
    }
    figure.legend(
        list(entries.values()), list(entries), loc="outside upper center", ncols=len(entries),
        handler_map={tuple: HandlerTuple(None)}, columnspacing=1.2, handlelength=2,
    )  # fmt: skip
    return figure


def _block(axes: Axes) -> None:
    """Draw the parts of a block from left to right, the recurrence in the colour of reversal."""
    wide, gap, blue = 1.25, 0.35, theme.STRATEGIES["reversible"]
    lefts = [(wide + gap) * index for index in range(len(_PARTS) + 1)]
    for index, (part, left) in enumerate(zip(_PARTS, lefts, strict=False)):
        face, text = (blue, "white") if index == _RECURRENCE else ("white", "black")
        axes.add_patch(Rectangle((left, 0), wide, 1, facecolor=face, edgecolor="black", lw=0.8))
        axes.text(left + wide / 2, 0.5, part, ha="center", va="center", size=5.5, color=text)
        _arrow(axes, (left - gap, 0.5), (left, 0.5))
    end = lefts[-1] - gap
    axes.text(end + 0.6, 0.5, "+", ha="center", va="center", size=8)
    _arrow(axes, (end, 0.5), (end + 0.4, 0.5))
    _arrow(axes, (end + 0.85, 0.5), (end + 2 * gap + 0.4, 0.5))
    skip = [(-0.3, 0.5), (-0.3, 1.5), (end + 0.6, 1.5)]
    axes.plot(*zip(*skip, strict=True), "-", color="black", marker="", linewidth=0.8)
    _arrow(axes, skip[-1], (end + 0.6, 0.75))
    axes.text(-0.55, 0.5, "$x_t$", ha="right", va="center")
    axes.text(end + 2 * gap + 0.5, 0.5, "$y_t$", ha="left", va="center")
    for first, last, text, colour in (
        (0, _RECURRENCE - 1, "recomputed", "black"),
        (_RECURRENCE, _RECURRENCE, "run back", blue),
        (_RECURRENCE + 1, len(_PARTS) - 1, "recomputed", "black"),
    ):
        begin, stop = lefts[first], lefts[last] + wide
        axes.plot([begin, stop], [-0.5, -0.5], "-", color=colour, marker="", linewidth=1)
        axes.text((begin + stop) / 2, -0.75, text, ha="center", va="top", size=5.5, color=colour)
    axes.set(xlim=(-1.6, end + 2.2), ylim=(-1.9, 2.7), title="a gated block")
    axes.set_axis_off()


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    style, look = "-|>,head_width=0.15,head_length=0.3", {"shrinkA": 0, "shrinkB": 0}
    axes.annotate("", end, start, arrowprops={"arrowstyle": style, "color": "black", **look})


def _stack(axes: Axes, name: str) -> None:
    """Draw layers over chunks, and what a strategy keeps before it rebuilds one of them."""
    colour = theme.colours_of([name])[name]
    for layer in range(_LAYERS):
        for chunk in range(_CHUNKS):
            cell = Rectangle((chunk, layer), 1, 1, facecolor=_AWAY, edgecolor="white")
            if chunk == _NEXT:
                cell.set(facecolor=_GRAPH)
            elif chunk > _NEXT:
                cell.set(facecolor="white", edgecolor=_GRAPH, linestyle=":")
            axes.add_patch(cell)
            if name == "reversible" and chunk <= _NEXT:
                lines = [layer + 0.35, layer + 0.5, layer + 0.65]
                axes.hlines(lines, chunk + 0.25, chunk + 0.75, color=colour, linewidth=0.8)
        at = range(_NEXT + 1) if name == "checkpoint" else [_NEXT + 1]
        axes.plot(at, [layer + 0.5] * len(at), color=colour, clip_on=False, **_SQUARE)
    _arrow(axes, (_NEXT + 1, -0.35), (_NEXT, -0.35))
    axes.text(_NEXT - 0.1, -0.35, "backward", ha="right", va="center", size=6)
    axes.text(-0.2, _LAYERS / 2, "layers", ha="right", va="center", size=6, rotation=90)
    axes.text(_CHUNKS / 2, -0.85, "time, in chunks of $C$ steps", ha="center", va="top", size=6)
    axes.set(xlim=(-0.6, _CHUNKS + 0.1), ylim=(-1.4, _LAYERS))
    axes.set_title(name.replace("u = 1", "$u = 1$"))
    axes.set_axis_off()
