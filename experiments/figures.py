"""The figures: one style, one place where they go, one function for each.

A function takes plain numbers and returns a Matplotlib figure; it computes nothing, so a figure can
be drawn again from the result files. A notebook calls :func:`style` once, hands its figures to
:func:`save` and its numbers to :func:`write_result`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from experiments.files import replacing, write_text

PROFILES = ("smoke", "quick", "paper")
#: Widths in inches: a column of a two-column page, and the whole page.
COLUMN, PAGE = 3.4, 6.8
#: Okabe and Ito's colours, told apart by colour-blind readers too (without their pale yellow).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
#: For guides: bounds, predictions, zero lines.
GREY = "#777777"
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
_STAMP_POINTS = 6
#: SHA-256 of every SVG file that this process drew.
_drawn: dict[Path, str] = {}


def style() -> None:
    """Set Matplotlib up: the sizes of print, lines that also differ in black and white."""
    plt.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=COLOURS, marker=_MARKERS, linestyle=_LINES),
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


# --- where things go ----------------------------------------------------------------------------


def folder(profile: str) -> Path:
    """Where results and figures of a profile go, in ``results/`` and ``figures/``.

    Args:
        profile: ``smoke``, ``quick`` or ``paper``.

    Returns:
        ``paper/`` of the repository for the paper profile, ``build/<profile>/`` for the others.

    Raises:
        ValueError: for an unknown profile.
        FileNotFoundError: outside the repository.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}; got {profile!r}")
    return repository() / ("paper" if profile == "paper" else f"build/{profile}")


def repository() -> Path:
    """The top folder of the repository that the working directory, or else the package, lies in.

    Raises:
        FileNotFoundError: neither lies in one.
    """
    # A notebook's working directory lies in the repository it belongs to. The package need not: it
    # may be installed elsewhere.
    here = Path.cwd()
    package = Path(__file__).resolve()
    for candidate in (here, *here.parents, *package.parents):
        if (candidate / "pyproject.toml").is_file() and (candidate / "notebooks").is_dir():
            return candidate
    raise FileNotFoundError(f"{here} is not inside the irevrnn repository, where results would go")


def save(figure: Figure, name: str, profile: str) -> None:
    """Write ``figures/<name>.svg`` and ``figures/<name>.png``.

    A figure of a small profile says so on its face.

    Args:
        figure: what a function of this module returned.
        name: file name without its ending.
        profile: the profile that made it.
    """
    if profile != "paper":
        _stamp(figure, f"{profile} profile")
    target = _subfolder(profile, "figures")
    for kind, metadata in (("svg", {"Date": None}), ("png", {})):
        with replacing(target / f"{name}.{kind}") as temporary:
            figure.savefig(temporary, format=kind, metadata=metadata)
    svg = target / f"{name}.svg"
    _drawn[svg] = hashlib.sha256(svg.read_bytes()).hexdigest()


def _stamp(figure: Figure, text: str) -> None:
    """Write ``text`` along the lower edge, on a strip of its own that the axes make room for."""
    strip = 1.6 * _STAMP_POINTS / 72 / figure.get_figheight()
    figure.set_layout_engine("constrained", rect=(0, strip, 1, 1 - strip))
    look: dict[str, Any] = {"ha": "right", "va": "bottom", "size": _STAMP_POINTS, "color": GREY}
    figure.text(0.995, 0.2 * strip, text, gid="stamp", **look)


def write_result(name: str, data: Mapping[str, Any], profile: str) -> None:
    """Write ``results/<name>.json``, whole or not at all, with the profile that made it.

    The file also records, as ``figures``, the hash of every figure that this process has drawn for
    the profile: the paper is not built with a figure that another run has drawn since.

    Args:
        name: file name without its ending.
        data: what JSON can hold; None for a number that does not exist, as JSON has no NaN.
        profile: the profile that made it.
    """
    place = folder(profile) / "figures"
    drawn = {path.stem: digest for path, digest in _drawn.items() if path.parent == place}
    content = {**data, "profile": profile, "figures": drawn}
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
    write_text(_subfolder(profile, "results") / f"{name}.json", f"{text}\n")


def _subfolder(profile: str, name: str) -> Path:
    path = folder(profile) / name
    path.mkdir(parents=True, exist_ok=True)
    return path


# --- notebook 01: the derivation ----------------------------------------------------------------


def drift(
    steps: Sequence[int],
    errors: Mapping[str, Sequence[float]],
    predictions: Sequence[Sequence[float]],
) -> Figure:
    """What floating point leaves over when a recurrence is run backwards.

    Args:
        steps: numbers of steps that were undone.
        errors: for each label, the largest error of h and c after so many steps.
        predictions: growth of the error that the decay alone explains, for some of them.
    """
    figure, axes = plt.subplots()
    for label, values in errors.items():
        axes.plot(steps, values, label=label)
    for index, values in enumerate(predictions):
        axes.plot(steps, values, "-", color=GREY, linewidth=0.7, marker="",
                  label="" if index else r"rounding error $\times\; u^{-n}$")  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="steps undone, $n$", ylabel="largest error of h, c")
    axes.set_ylim(top=1e4)
    axes.grid(True)
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def forgotten(u: Sequence[float], counted: Sequence[float], bound: Sequence[float]) -> Figure:
    """Bits that one decay step forgets.

    Args:
        u: recurrent weights, below 1.
        counted: bits by which the number of distinct states shrank.
        bound: -log2(u).
    """
    figure, axes = plt.subplots()
    distance = [1 - value for value in u]
    axes.plot(distance, bound, "-", color=GREY, marker="", label=r"$-\log_2 u$")
    axes.plot(distance, counted, linestyle="", label="counted")
    axes.set(xscale="log", yscale="log", xlabel="$1 - u$", ylabel="bits forgotten per step")
    axes.grid(True)
    axes.legend()
    return figure


def finite_differences(deltas: Sequence[float], errors: Mapping[str, Sequence[float]]) -> Figure:
    """The error of central differences against the gradient derived by hand.

    Args:
        deltas: step sizes of the differences.
        errors: for each tensor, the relative error of the derivative along a random direction.
    """
    figure, axes = plt.subplots()
    for name, values in errors.items():
        axes.plot(deltas, values, label=f"${name}$")
    axes.set(xscale="log", yscale="log", xlabel=r"step of the difference, $\delta$",
             ylabel="relative error")  # fmt: skip
    axes.grid(True)
    axes.legend(ncols=2)
    return figure


def division(u: Sequence[float], errors: Mapping[str, Sequence[float]]) -> Figure:
    """How wrong the gradient of small recurrent weights gets.

    Args:
        u: the recurrent weights, as categories.
        errors: for each way to compute it, the relative error of du, NaN where du is NaN.
    """
    figure, axes = plt.subplots()
    places = range(len(u))
    for row, (label, values) in enumerate(errors.items()):
        [line] = axes.plot(places, values, label=label)
        for place in (place for place, value in enumerate(values) if math.isnan(value)):
            axes.text(place, 0.93 - 0.08 * row, "NaN", ha="center", color=line.get_color(), size=7,
                      transform=axes.get_xaxis_transform())  # fmt: skip
    axes.set_xticks(places, [_power_of_ten(x) for x in u])
    axes.set(yscale="log", xlabel="recurrent weight, $u$", ylabel="largest relative error of du")
    axes.set_ylim(top=1e4)
    axes.grid(True)
    axes.legend()
    return figure


def _power_of_ten(x: float) -> str:
    """Label a tick; every second one, as there is no room for all."""
    if x == 0:
        return "0"
    exponent = round(math.log10(x))
    return "" if exponent % 2 else f"$10^{{{exponent}}}$"


def accuracy(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """float32 gradients of the kernel and of eager PyTorch against float64.

    Args:
        rows: entries with ``steps``, ``tensor`` and the relative errors ``ours_median``,
            ``ours_max``, ``eager_median`` and ``eager_max``.
    """
    lengths = sorted({row["steps"] for row in rows})
    figure, panels = plt.subplots(
        1, len(lengths), figsize=(COLUMN * len(lengths), 2.6), sharex=True, squeeze=False
    )
    for axes, steps in zip(panels[0], lengths, strict=True):
        chosen = [row for row in rows if row["steps"] == steps]
        for offset, (key, label) in enumerate((("ours", "kernel"), ("eager", "eager PyTorch"))):
            heights = [place + 0.3 * (offset - 0.5) for place in range(len(chosen))]
            low, high = ([row[f"{key}_{end}"] for row in chosen] for end in ("median", "max"))
            axes.hlines(heights, low, high, color=COLOURS[offset], linewidth=0.8)
            look: dict[str, Any] = {"linestyle": "", "marker": _MARKERS[offset]}
            axes.plot(low, heights, color=COLOURS[offset], label=f"{label}, median unit", **look)
            axes.plot(high, heights, color=COLOURS[offset], fillstyle="none",
                      label=f"{label}, worst unit", **look)  # fmt: skip
        axes.set_yticks(range(len(chosen)), [f"${row['tensor']}$" for row in chosen])
        axes.invert_yaxis()
        axes.set(xscale="log", xlabel="relative error of the gradient", title=f"T = {steps}")
        axes.grid(True, axis="x")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def saturation(
    steps: Sequence[int], abs_c: Sequence[float], bound: Sequence[float], slope: Sequence[float]
) -> Figure:
    """How the cell state grows, and what that does to the slope its couplings learn through.

    Args:
        steps: T.
        abs_c: abs(c_T), median over the units.
        bound: what it can reach, median over the units.
        slope: f'(c_T), median over the units.
    """
    figure, (growth, learning) = plt.subplots(2, 1, figsize=(COLUMN, 3.2), sharex=True)
    growth.plot(steps, bound, "-", color=GREY, marker="", label=r"$|c_0| + T\,\sum_i |a_i|$")
    growth.plot(steps, abs_c, label="$|c_T|$")
    growth.set(yscale="log", ylabel="cell state")
    growth.legend()
    learning.plot(steps, slope)
    learning.set(xscale="log", xlabel="steps, $T$", ylabel="slope $f'(c_T)$")
    for axes in (growth, learning):
        axes.grid(True)
    return figure


def lost_increments(steps: Sequence[int], errors: Sequence[float]) -> Figure:
    """What float32 loses of a growing cell state.

    Args:
        steps: T.
        errors: relative error of c_T in float32, median over the units.
    """
    figure, axes = plt.subplots()
    axes.plot(steps, errors)
    axes.set(xscale="log", yscale="log", xlabel="steps, $T$", ylabel="relative error of $c_T$")
    axes.grid(True)
    return figure


# --- notebook 02: MNIST -------------------------------------------------------------------------


def sequences(
    images: np.ndarray, sequences: np.ndarray, labels: Sequence[int], title: str
) -> Figure:
    """Digits as people see them, and as the network does.

    Args:
        images: (N, side, side).
        sequences: (N, T), the pixels one after the other.
        labels: (N,).
        title: the data set.
    """
    size = (PAGE, 0.95 * len(images))
    figure, rows = plt.subplots(
        len(images), 2, figsize=size, sharex="col", squeeze=False, width_ratios=(1, 6)
    )
    for (picture, line), image, values, label in zip(rows, images, sequences, labels, strict=True):
        _show(picture, image, f"{label}")
        line.plot(values, "-", linewidth=0.6, marker="")
        line.set(ylabel="brightness", ylim=(-0.05, 1.05), xlim=(0, len(values)))
    rows[-1, 1].set_xlabel("step, $t$ (one pixel a step)")
    figure.suptitle(title)
    return figure


def _show(axes: Axes, image: np.ndarray, title: str) -> None:
    axes.imshow(image, cmap="gray_r", vmin=0, interpolation="nearest")
    axes.set_title(title, size=7)
    axes.set_axis_off()


def learning_curve(history: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Loss and accuracy over the epochs.

    Args:
        history: a row per epoch with ``epoch``, ``train_loss``, ``train_accuracy``, ``val_loss``
            and ``val_accuracy``; the last two are None where nothing was validated.
        title: the data set.
    """
    figure, panels = plt.subplots(2, 1, figsize=(COLUMN, 3.2), sharex=True)
    epochs = [row["epoch"] for row in history]
    for axes, quantity in zip(panels, ("loss", "accuracy"), strict=True):
        for part, label in (("train", "training"), ("val", "validation")):
            if history[0][f"{part}_{quantity}"] is not None:
                axes.plot(epochs, [row[f"{part}_{quantity}"] for row in history], label=label)
        axes.set_ylabel(quantity)
        axes.grid(True)
    panels[0].legend()
    panels[0].set_title(title)
    panels[1].yaxis.set_major_formatter(PercentFormatter(1))
    panels[1].xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[1].set_xlabel("epoch")
    return figure


def confusion(
    matrix: Sequence[Sequence[int]], title: str, names: Sequence[str] | None = None
) -> Figure:
    """How often each class was taken for each other one.

    Args:
        matrix: (classes, classes) of counts, a row for each true class.
        title: the data set.
        names: of the classes, if they are not their numbers.
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
    axes.set(xlabel="taken for", ylabel="true class", title=title)
    return figure


def mistakes(
    images: np.ndarray, labels: Sequence[int], predicted: Sequence[int], title: str
) -> Figure:
    """Digits that were taken for others.

    Args:
        images: (N, side, side), N at least 1.
        labels: (N,), what they are.
        predicted: (N,), what they were taken for.
        title: the data set.
    """
    columns = 8
    rows = math.ceil(len(images) / columns)
    size = (PAGE, 1.05 * rows + 0.2)
    hidden = {"visible": False}
    figure, places = plt.subplots(rows, columns, figsize=size, squeeze=False, subplot_kw=hidden)
    for axes, image, label, guess in zip(places.flat, images, labels, predicted, strict=False):
        axes.set_visible(True)
        _show(axes, image, f"{label} taken for {guess}")
    figure.suptitle(title)
    return figure


# --- notebook 03: action recognition ------------------------------------------------------------

_AXES = ("x", "y", "z")


def signals(
    recordings: Sequence[np.ndarray], labels: Sequence[str], frame_rate: float, title: str
) -> Figure:
    """What a watch measures: a row for each recording, acceleration left and rotation right.

    Args:
        recordings: each (T, 6): acceleration along x, y and z in g, rates of rotation in rad/s.
        labels: one for each row.
        frame_rate: steps per second.
        title: the data set.
    """
    size = (PAGE, 0.85 * len(recordings) + 0.6)
    figure, rows = plt.subplots(
        len(recordings), 2, figsize=size, sharex=True, sharey="col", squeeze=False
    )
    for (left, right), frames, label in zip(rows, recordings, labels, strict=True):
        seconds = np.arange(len(frames)) / frame_rate
        for axes, values in ((left, frames[:, :3]), (right, frames[:, 3:])):
            for column, name in enumerate(_AXES):
                axes.plot(seconds, values[:, column], marker="", linewidth=0.8, label=name)
            axes.set_xlim(0, seconds[-1])
        left.set_title(label, loc="left", size=7, weight="normal")
    for axes, quantity in zip(
        rows[len(rows) // 2], ("acceleration, g", "rotation, rad/s"), strict=True
    ):
        axes.set_ylabel(quantity)
    for axes in rows[-1]:
        axes.set_xlabel("time, s")
    figure.legend(*rows[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    figure.suptitle(title)
    return figure


def skeletons(
    movements: Sequence[np.ndarray],
    labels: Sequence[str],
    bones: Sequence[tuple[int, int]],
    title: str,
) -> Figure:
    """Movements of a body: a row for each, some moments from left to right.

    Args:
        movements: each (n, joints, 3), x to the side, y up, z away; n the same for all.
        labels: one for each row.
        bones: pairs of joints.
        title: the data set.
    """
    columns = len(movements[0])
    figure = plt.figure(figsize=(PAGE, 1.35 * len(movements) + 0.3))
    for row, (frames, label) in enumerate(zip(movements, labels, strict=True)):
        middle = frames.reshape(-1, 3).mean(0)
        reach = 0.55 * np.ptp(frames.reshape(-1, 3), axis=0).max()
        for column, joints in enumerate(frames):
            axes = figure.add_subplot(
                len(movements), columns, row * columns + column + 1, projection="3d"
            )
            x, height, depth = (joints - middle).T
            for parent, child in bones:
                pair = [parent, child]
                axes.plot(x[pair], depth[pair], height[pair], "-", marker="", color=COLOURS[0])
            axes.scatter(x, depth, height, s=2, color=COLOURS[1], depthshade=False)
            axes.set(xlim=(-reach, reach), ylim=(-reach, reach), zlim=(-reach, reach))
            axes.set_box_aspect((1, 1, 1), zoom=1.5)
            axes.view_init(elev=12, azim=-70)
            axes.set_axis_off()
            if column == 0:
                axes.set_title(label, size=7, weight="normal")
    figure.suptitle(f"{title}, from the start (left) to the end of each action (right)")
    return figure


def subjects(accuracies: Mapping[str, Mapping[str, float]], title: str) -> Figure:
    """Accuracy on the recordings of each subject, who was in no training set.

    Args:
        accuracies: for each method, the accuracy by subject; the same subjects for all.
        title: the data set.
    """
    figure, axes = plt.subplots()
    names = list(next(iter(accuracies.values())))
    width = 0.8 / len(accuracies)
    for index, (label, by_subject) in enumerate(accuracies.items()):
        places = [
            place + width * (index - (len(accuracies) - 1) / 2) for place in range(len(names))
        ]
        axes.bar(places, [by_subject[name] for name in names], 0.9 * width, label=label,
                 color=COLOURS[index])  # fmt: skip
    axes.set_xticks(range(len(names)), names)
    axes.set(xlabel="subject who is tested", ylabel="accuracy", ylim=(0, 1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(True, axis="y")
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=len(accuracies))
    axes.set_title(title)
    return figure


# --- notebook 04: memory and time ---------------------------------------------------------------


def saved_bytes(
    steps: Sequence[int],
    by_steps: Mapping[str, Sequence[float]],
    bound: Sequence[float],
    couplings: Sequence[int],
    by_couplings: Mapping[str, Sequence[float]],
) -> Figure:
    """Bytes saved between forward and backward, against the length and the number of couplings.

    Args:
        steps: T.
        by_steps: for each method, bytes at each T.
        bound: what ``recompute`` may hold at each T.
        couplings: R.
        by_couplings: for the same methods, bytes at each R; NaN where not measured.
    """
    figure, (long, wide) = plt.subplots(2, 1, figsize=(COLUMN, 4.8))
    for values, others in zip(by_steps.values(), by_couplings.values(), strict=True):
        long.plot(steps, _megabytes(values), fillstyle="none")
        wide.plot(couplings, _megabytes(others), fillstyle="none")
    long.plot(steps, _megabytes(bound), "-", color=GREY, marker="", linewidth=3, alpha=0.5)
    long.set(xscale="log", yscale="log", xlabel="steps, $T$", ylabel="saved, MB")
    wide.set(yscale="log", xlabel="couplings, $R$", ylabel="saved, MB")
    wide.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in (long, wide):
        axes.grid(True)
    labels = [*by_steps, r"$(\lceil T/K \rceil - 1)\,B\,H\,s$"]
    figure.legend(long.get_lines(), labels, loc="outside upper center", ncols=2)
    return figure


def _megabytes(values: Sequence[float]) -> list[float]:
    return [value / 1e6 for value in values]


def peak_memory(
    steps: Sequence[int], by_method: Mapping[str, Sequence[float]], sequence: Sequence[float]
) -> Figure:
    """Growth of the peak memory of a process, against the length.

    Args:
        steps: T.
        by_method: for each method, bytes at each T.
        sequence: bytes of one tensor (T, B, H) at each T.
    """
    figure, axes = plt.subplots(figsize=(COLUMN, 3.4))
    for label, values in by_method.items():
        axes.plot(steps, _megabytes(values), fillstyle="none", label=label)
    axes.plot(steps, _megabytes(sequence), "-", color=GREY, marker="", label="one $(T, B, H)$")
    axes.set(xscale="log", yscale="log", xlabel="steps, $T$", ylabel="growth of the peak, MB")
    axes.set_xticks(steps, [f"{x}" for x in steps])
    axes.minorticks_off()
    axes.grid(True)
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def speed(panels: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Time of forward plus backward: a panel for each shape.

    Args:
        panels: for each title, by method: lower quartile, median and upper quartile in ms. The
            first method of a panel is the one that the others are compared with.
    """
    rows = math.ceil(len(panels) / 2)
    bars = max(len(methods) for methods in panels.values())
    figure, places = plt.subplots(
        rows, min(2, len(panels)), figsize=(PAGE, 0.6 + 0.19 * bars * rows), squeeze=False
    )
    for axes in places.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (title, methods) in zip(places.flat, panels.items(), strict=False):
        low, median, high = np.array(list(methods.values())).T
        spread = [median - low, high - median]
        look = {"color": [COLOURS[1]] + [COLOURS[5]] * (len(methods) - 1), "ecolor": "black"}
        axes.barh(range(len(methods)), median, xerr=spread, height=0.7, capsize=2, **look)
        for place, (time, end) in enumerate(zip(median, high, strict=True)):
            text = f"{_figures_of(time)} ms"
            if place:
                text += f" ({_figures_of(time / median[0])} x)"
            axes.text(end + 0.02 * high.max(), place, text, va="center", size=6)
        axes.set_yticks(range(len(methods)), list(methods))
        axes.invert_yaxis()
        axes.set(xlabel="forward plus backward, ms", title=title)
        axes.set_xlim(right=1.55 * high.max())
    return figure


def _figures_of(number: float) -> str:
    """Three significant figures, or all of those before the point."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def over_floor(shapes: Mapping[str, Sequence[float]]) -> Figure:
    """Time of the scan as a multiple of its floor, and what the floor consists of.

    Args:
        shapes: for each shape, over the floor: the time of tanh, of multiply-adds, of moving bytes,
            and the measured time.
    """
    size = (COLUMN, 0.9 + 0.24 * len(shapes))
    figure, axes = plt.subplots(figsize=size)
    places = range(len(shapes))
    tanh, multiply_adds, moved, measured = np.array(list(shapes.values())).T
    arithmetic = tanh + multiply_adds
    for left, width, label, colour in (
        (0 * tanh, tanh, "tanh", COLOURS[0]),
        (tanh, multiply_adds, "multiply-adds", COLOURS[4]),
        (arithmetic, measured - arithmetic, "the rest, measured", "#dddddd"),
    ):
        axes.barh(places, width, left=left, height=0.7, color=colour, label=label)
    axes.plot(moved, places, linestyle="", marker="D", color="black", label="bytes, meanwhile")
    axes.axvline(1, linestyle="-", color="black", linewidth=0.8, marker="")
    for place, value in enumerate(measured):
        axes.text(value + 0.02 * measured.max(), place, f"{value:.2f}", va="center", size=6)
    axes.set_yticks(places, list(shapes))
    axes.invert_yaxis()
    axes.set(xlabel="time over the floor", xlim=(0, 1.15 * max(1, measured.max())))
    figure.legend(loc="outside upper center", ncols=2)
    return figure


# --- notebook 04: whole stacks ------------------------------------------------------------------


def entropy(
    forgetting: Sequence[float],
    bits: Mapping[str, Sequence[float]],
    bounds: Mapping[str, Sequence[float]],
) -> Figure:
    """Bits on the bit stacks per unit and step, against the entropy that is forgotten.

    Args:
        forgetting: 1 - abs(u).
        bits: for each activation, bits counted at each u.
        bounds: for the same activations, the entropy at each u.
    """
    figure, axes = plt.subplots()
    for label, counted in bits.items():
        axes.plot(forgetting, counted, linestyle="", fillstyle="none", label=label)
    for bound in bounds.values():
        [line] = axes.plot(forgetting, bound, "-", color=GREY, marker="", zorder=0)
    line.set_label("entropy")
    axes.set(xscale="log", yscale="log")
    axes.set(xlabel="forgetting, $1 - |u|$", ylabel="bits per unit and step")
    axes.grid(True)
    axes.legend()
    return figure


def lengths(rows: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> Figure:
    """Held bytes, peak memory and time per step of whole stacks, against the length.

    Args:
        rows: with ``method``, ``steps``, ``saved_bytes``, ``peak_bytes`` and ``seconds``.
        labels: names of the methods, in the order of drawing.
    """
    figure, panels = plt.subplots(3, 1, figsize=(COLUMN, 6.2), sharex=True)
    for name in labels:
        mine = [row for row in rows if row["method"] == name]
        steps = [row["steps"] for row in mine]
        for axes, values in zip(
            panels,
            (
                [row["saved_bytes"] / 1e6 for row in mine],
                [row["peak_bytes"] / 1e6 for row in mine],
                [1e6 * row["seconds"] / row["steps"] for row in mine],
            ),
            strict=True,
        ):
            axes.plot(steps, values, fillstyle="none")
    for axes, label in zip(
        panels, ("saved, MB", "growth of the peak, MB", "time per step, µs"), strict=True
    ):
        axes.set(xscale="log", yscale="log", ylabel=label)
        axes.grid(True)
    panels[-1].set_xlabel("steps, $T$")
    figure.legend(panels[0].get_lines(), labels.values(), loc="outside upper center", ncols=3)
    return figure


def crossover(
    steps: Sequence[int],
    lines: Mapping[str, Sequence[float]],
    measured: Mapping[str, tuple[Sequence[int], Sequence[float]]],
) -> Figure:
    """Bits saved per unit and step against the length: where checkpoints or reversal hold less.

    Args:
        steps: T.
        lines: for each strategy, bits by its formula at each T; the first is checkpoints.
        measured: for each strategy, T and bits that were measured.
    """
    figure, axes = plt.subplots(figsize=(COLUMN, 3.8))
    shades = [COLOURS[1], *plt.get_cmap("viridis")(np.linspace(0, 0.85, len(lines) - 1))]
    for (label, values), colour in zip(lines.items(), shades, strict=True):
        axes.plot(steps, values, marker="", color=colour, label=label)
    for (label, (at, values)), marker in zip(measured.items(), _MARKERS, strict=False):
        axes.plot(
            at, values, color="black", linestyle="", marker=marker, fillstyle="none", label=label
        )
    axes.set(
        xscale="log", yscale="log", xlabel="steps, $T$", ylabel="bits saved per unit and step"
    )  # fmt: skip
    axes.grid(True)
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def same_training(losses: Mapping[str, Sequence[float]]) -> Figure:
    """Training curves of one model, and how far they are from the first.

    Args:
        losses: for each strategy, the loss of every step; the first is the one compared with.
    """
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
    axes.set_ylabel("loss")
    apart.set(xlabel="optimizer step", ylabel=f"distance from\n{reference}")
    for panel in (axes, apart):
        panel.grid(True)
        panel.legend()
    return figure


# --- notebook 05: the experiments ---------------------------------------------------------------


def comparison(groups: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Accuracies side by side: a panel for each group, a row for each of its members.

    Args:
        groups: for each title, by label: the accuracy of each run.
    """
    sizes = [len(members) for members in groups.values()]
    heights = [max(sizes[place : place + 2]) + 1.5 for place in range(0, len(sizes), 2)]
    figure, places = plt.subplots(
        len(heights), 2, figsize=(PAGE, 0.22 * sum(heights) + 0.5), squeeze=False,
        height_ratios=heights,
    )  # fmt: skip
    for axes in places.flat[len(groups) :]:
        axes.set_visible(False)
    for axes, (title, members) in zip(places.flat, groups.items(), strict=False):
        for place, values in enumerate(members.values()):
            look: dict[str, Any] = {"linestyle": "", "zorder": 3}
            axes.plot(values, [place] * len(values), marker="o", color=COLOURS[0], fillstyle="none",
                      label="a run", **look)  # fmt: skip
            axes.plot([np.mean(values)], [place], marker="|", markersize=11, color=COLOURS[1],
                      label="their mean", **look)  # fmt: skip
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
    lines = places[0, 0].get_lines()[:2]
    names = [str(line.get_label()) for line in lines]
    figure.legend(lines, names, loc="outside upper right", ncols=2)
    return figure


def race(
    panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
    chance: Mapping[str, float],
) -> Figure:
    """Learning curves against the time of training: a panel for each task.

    Args:
        panels: for each quantity, by method: minutes, and the quantity on validation data then. An
            error is drawn to a logarithmic scale, an accuracy is not.
        chance: the quantity without any memory.
    """
    figure, rows = plt.subplots(
        len(panels), 1, figsize=(COLUMN, 1.9 * len(panels) + 0.3), squeeze=False
    )
    for axes, (quantity, methods) in zip(rows[:, 0], panels.items(), strict=True):
        for label, (minutes, values) in methods.items():
            every = max(1, len(minutes) // 12)  # more markers would hide the line
            axes.plot(minutes, values, label=label, markevery=every)
        axes.axhline(chance[quantity], color=GREY, linewidth=0.8, linestyle="--", label="chance")
        if quantity.startswith("accuracy"):
            axes.yaxis.set_major_formatter(PercentFormatter(1))
            axes.set_ylim(0, 1.02)
        else:
            axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set(ylabel=quantity, xlabel="minutes of training")
        axes.grid(True)
    figure.legend(*rows[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure
