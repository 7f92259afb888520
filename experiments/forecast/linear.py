"""A linear predictor with a distribution of its errors, the usual method."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.forecast.data import LEVELS, Levels

#: Samples that the next one is predicted from.
ORDER = 32
#: Scales of the error, in levels, of which the training recordings choose one.
SCALES = np.geomspace(0.05, 100, 70)


def linear_bits(train: Sequence[Levels], test: Levels) -> float:
    """Return the bits per sample of ``test`` by least squares and a logistic distribution.

    Coefficients and scale come from ``train``. A level's probability is that of the interval around
    it, given the prediction; the outermost levels take what lies beyond.
    """
    xs, ys = zip(*(_lagged(one) for one in train), strict=True)
    x, y = np.concatenate(xs), np.concatenate(ys)
    coefficients, *_ = np.linalg.lstsq(x, y, rcond=None)
    some = slice(None, None, max(1, len(y) // 200_000))
    predicted = x[some] @ coefficients
    scale = min(SCALES, key=lambda scale: _bits(predicted, y[some], scale))
    x, y = _lagged(test)
    return _bits(x @ coefficients, y, scale)


def _lagged(one: Levels) -> tuple[np.ndarray, np.ndarray]:
    """Return the ORDER samples before each, and 1, (N, ORDER + 1), and the sample, (N,)."""
    values = one.values.numpy().astype(np.float64)
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
