"""The look of the figures: sizes, colours, and what their axes have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

#: Widths in inches: a column of a two-column page, and the whole page.
COLUMN, PAGE = 3.4, 6.8
#: Okabe and Ito's colours, told apart by colour-blind readers too (without their pale yellow).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
#: One colour for each strategy in all figures; between commas, labels have its name.
STRATEGIES = {
    "reversible": COLOURS[0],
    "checkpoint": COLOURS[1],
    "recompute": COLOURS[2],
    "torch.utils.checkpoint": COLOURS[3],
    "store": COLOURS[5],
    "nn.LSTM": COLOURS[6],
    "ThroughTime(nn.LSTM)": COLOURS[4],
    "RevGRU": "#882255",  # from Paul Tol's colours, as these are all taken
}
#: For guides: bounds, predictions, zero lines.
GREY = "#777777"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))


def style() -> None:
    """Set Matplotlib up: the sizes of print, lines that also differ in black and white."""
    plt.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=COLOURS, marker=MARKERS, linestyle=_LINES),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 8,
            "axes.titleweight": "bold",
            "figure.constrained_layout.use": True,
            "figure.dpi": 150,
            "figure.figsize": (COLUMN, 2.4),
            "figure.titlesize": 8,
            "figure.titleweight": "bold",
            "font.size": 8,
            "grid.color": "#dddddd",
            "grid.linewidth": 0.5,
            "legend.fontsize": 7,
            "legend.handlelength": 3.2,  # a whole period of every line style
            "legend.frameon": False,
            "lines.linewidth": 1.2,
            "lines.markersize": 3.5,
            "savefig.dpi": 200,
            "svg.fonttype": "path",  # text renders the same where the font is missing
            "svg.hashsalt": "irevrnn",  # the same figure gives the same file
            "xtick.labelsize": 7,
            "ytick.labelsize": 7,
        }
    )


def panels_of(
    count: int, columns: int, heights: Sequence[float], margin: float
) -> tuple[Figure, list[Axes]]:
    """Make ``count`` panels in rows of these heights, in inches; places left over stay empty."""
    size = (PAGE, sum(heights) + margin)
    figure, places = plt.subplots(
        len(heights), columns, figsize=size, squeeze=False, height_ratios=heights
    )
    for axes in places.flat[count:]:
        axes.set_visible(False)
    return figure, list(places.flat[:count])


def colours_of(labels: Iterable[str]) -> dict[str, str]:
    """Choose a colour for each label: that of the strategy it names, or one that is left over."""
    colours = {x: STRATEGIES[name] for x in labels for name in x.split(", ") if name in STRATEGIES}
    left_over = cycle([x for x in COLOURS if x not in colours.values()])
    return {label: colours.get(label) or next(left_over) for label in labels}


def frame(axes: Axes, xlabel: str = "", ylabel: str = "", log: str = "") -> None:
    """Label the axes of a line plot and draw its grid.

    ``log`` names those with a logarithmic scale: ``"x"``, ``"y"`` or ``"xy"``. An empty label
    changes nothing.
    """
    for letter, label in (("x", xlabel), ("y", ylabel)):
        if letter in log:
            axes.set(**{f"{letter}scale": "log"})
        if label:
            axes.set(**{f"{letter}label": label})
    axes.grid(True)


def plain_numbers(axis: Axis) -> None:
    """Number a logarithmic axis by 1, 2, 5, 10, ... in place of powers, at two places at least."""
    low, high = axis.get_view_interval()
    narrow = high < 6 * low
    axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if narrow else (1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def curves(
    axes: Axes, x: Any, by_label: Mapping[str, Sequence[float]], unit: float = 1.0, **look: Any
) -> None:
    """Plot a line for each label, its values divided by ``unit``, strategies in their colours."""
    colours = colours_of(by_label)
    for label, values in by_label.items():
        axes.plot(x, np.divide(values, unit), label=label, color=colours[label], **look)


def guide(axes: Axes, *points: Any, label: str, linestyle: str = "-", **look: Any) -> None:
    """Draw a bound or a prediction: a grey line without markers."""
    axes.plot(*points, linestyle, **{"color": GREY, "marker": "", "label": label, **look})


def bar_rows(axes: Axes, names: Iterable[str]) -> None:
    """Name the rows of a plot from top to bottom."""
    names = list(names)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()


def legend_above(figure: Figure, axes: Axes, ncols: int = 2) -> None:
    """Put the legend of one of the axes above the figure, in fewer columns if it is too wide."""
    handles, labels = axes.get_legend_handles_labels()
    legend = figure.legend(handles, labels, loc="outside upper center", ncols=ncols)
    if ncols > 1 and legend.get_window_extent().width > figure.bbox.width:
        legend.remove()
        legend_above(figure, axes, ncols - 1)
