"""Intervals of a test's figure, by resampling what was tested."""

from typing import Any

import numpy as np

from experiments.train.objectives import Classification

RESAMPLES = 2000
LEVEL = 0.95
SEED = 2023


def interval(
    objective: Classification, predictions: np.ndarray, labels: np.ndarray
) -> dict[str, Any]:
    """Return the percentile interval of the objective's figure over recordings drawn anew.

    Recordings are taken to be independent, which several of one person are not.

    Args:
        predictions: predicted classes, (N,) int64.
        labels: right classes, (N,) int64.
    """
    # RandomState's streams never change.
    generator = np.random.RandomState(SEED)
    draws = (generator.randint(len(labels), size=len(labels)) for _ in range(RESAMPLES))
    scores = [objective.score(predictions[draw], labels[draw]) for draw in draws]
    low, high = np.quantile(scores, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return {"level": LEVEL, "low": low, "high": high, "resamples": RESAMPLES, "seed": SEED}
