"""Figures of the data: digits, recordings of a watch, and skeletons."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.figures import theme


def sequences(
    images: np.ndarray, sequences: np.ndarray, labels: Sequence[int], title: str
) -> Figure:
    """Show digits (N, side, side) as images, and as the sequences (N, T) that the network reads."""
    size = (theme.PAGE, 0.95 * len(images))
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


def mistakes(
    images: np.ndarray, labels: Sequence[int], predicted: Sequence[int], title: str
) -> Figure:
    """Show misclassified digits (N, side, side) with their true and predicted classes."""
    figure, places = theme.panels_of(len(images), 8, [1.05] * math.ceil(len(images) / 8), 0.2)
    for axes, image, label, guess in zip(places, images, labels, predicted, strict=True):
        _show(axes, image, f"{label} taken for {guess}")
    figure.suptitle(title)
    return figure


def _show(axes: Axes, image: np.ndarray, title: str) -> None:
    axes.imshow(image, cmap="gray_r", vmin=0, interpolation="nearest")
    axes.set_title(title, size=7)
    axes.set_axis_off()


def signals(
    recordings: Sequence[np.ndarray], labels: Sequence[str], frame_rate: float, title: str
) -> Figure:
    """Plot recordings of a watch: a row for each, acceleration left and rotation right.

    Each is (T, 6): acceleration along x, y and z in g, then rates of rotation in rad/s.
    """
    shape = (len(recordings), 2)
    size = (theme.PAGE, 0.85 * len(recordings) + 0.6)
    figure, rows = plt.subplots(*shape, figsize=size, sharex=True, sharey="col", squeeze=False)
    for panels, frames, label in zip(rows, recordings, labels, strict=True):
        seconds = np.arange(len(frames)) / frame_rate
        for axes, values in zip(panels, (frames[:, :3], frames[:, 3:]), strict=True):
            for name, column in zip("xyz", values.T, strict=True):
                axes.plot(seconds, column, marker="", linewidth=0.8, label=name)
            axes.set_xlim(0, seconds[-1])
        panels[0].set_title(label, loc="left", size=7, weight="normal")
    for column, quantity in enumerate(("acceleration, g", "rotation, rad/s")):
        rows[len(rows) // 2, column].set_ylabel(quantity)
        rows[-1, column].set_xlabel("time, s")
    figure.legend(*rows[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    figure.suptitle(title)
    return figure


def skeletons(
    movements: Sequence[np.ndarray],
    labels: Sequence[str],
    bones: Sequence[tuple[int, int]],
    title: str,
) -> Figure:
    """Draw movements of a body: a row for each, some moments from left to right.

    Each is (n, joints, 3), x to the side, y up, z away, n the same for all; ``bones`` are pairs of
    joints.
    """
    columns = len(movements[0])
    figure = plt.figure(figsize=(theme.PAGE, 1.35 * len(movements) + 0.3))
    for row, (frames, label) in enumerate(zip(movements, labels, strict=True)):
        middle = frames.reshape(-1, 3).mean(0)
        reach = 0.55 * np.ptp(frames.reshape(-1, 3), axis=0).max()
        for column, joints in enumerate(frames):
            place = row * columns + column + 1
            axes = figure.add_subplot(len(movements), columns, place, projection="3d")
            x, height, depth = (joints - middle).T
            for pair in map(list, bones):
                axes.plot(
                    x[pair], depth[pair], height[pair], "-", marker="", color=theme.COLOURS[0]
                )
            axes.scatter(x, depth, height, s=2, color=theme.COLOURS[1], depthshade=False)
            axes.set(xlim=(-reach, reach), ylim=(-reach, reach), zlim=(-reach, reach))
            axes.set_box_aspect((1, 1, 1), zoom=1.5)
            axes.view_init(elev=12, azim=-70)
            axes.set_axis_off()
            if column == 0:
                axes.set_title(label, size=7, weight="normal")
    figure.suptitle(f"{title}, from the start (left) to the end of each action (right)")
    return figure
