"""A linear predictor with a distribution of its errors, the usual method."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.forecast.data import LEVELS, Levels

#: Samples that the next one is predicted from.
ORDER = 32
#: Scales of the error, in levels, of which the training recordings choose one.
SCALES = np.geomspace(0.05, 100, 70)


def linear_bits(train: Sequence[Levels], test: Levels, steps: int | None = None) -> float:
    """Return the bits per sample of ``test`` by least squares and a logistic distribution.

    Coefficients and scale come from ``train``. A level's probability is that of the interval around
    it, given the prediction; the outermost levels take what lies beyond. The first ``steps`` of
    each recording count, or all.
    """
    squares, products, some = 0.0, 0.0, []
    for one in train:  # all of them at once would take gigabytes
        x, y = _lagged(one, steps)
        squares, products = squares + x.T @ x, products + x.T @ y
        every = max(1, len(y) * len(train) // 200_000)
        some.append((x[::every].copy(), y[::every]))
    coefficients, *_ = np.linalg.lstsq(squares, products, rcond=None)
    x, y = map(np.concatenate, zip(*some, strict=True))
    predicted = x @ coefficients
    scale = min(SCALES, key=lambda scale: _bits(predicted, y, scale))
    x, y = _lagged(test, steps)
    return _bits(x @ coefficients, y, scale)


def _lagged(one: Levels, steps: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the ORDER samples before each, and 1, (N, ORDER + 1), and the sample, (N,)."""
    values = one.values[:steps].numpy().astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(values[:-1], ORDER)
    return np.column_stack((windows, np.ones(len(windows)))), values[ORDER:]


def _bits(predicted: np.ndarray, level: np.ndarray, scale: float) -> float:
    def below(x: np.ndarray) -> np.ndarray:
        return 0.5 * (1 + np.tanh((x - predicted) / (2 * scale)))

    upper = np.where(level >= LEVELS - 1, 1.0, below(level + 0.5))
    lower = np.where(level <= 0, 0.0, below(level - 0.5))
    # A floor of one in a million keeps a single surprise from counting without bound.
    probability = (1 - 1e-6) * np.maximum(upper - lower, 0) + 1e-6 / LEVELS
    return float(-np.log2(probability).mean())
