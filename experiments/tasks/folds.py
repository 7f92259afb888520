"""Tasks with folds: their runs, the fold of a run, and the details of a test."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.sequences import Fold
from experiments.train.config import ConfigError, TrainConfig
from experiments.train.objectives import Evaluation


def runs_of_folds(config: TrainConfig, count: int) -> list[tuple[str, TrainConfig]]:
    """Return a run for each of ``count`` folds and each seed of a configuration with a ``fold``."""
    fields: list[dict[str, Any]] = [{"fold": fold} for fold in range(count)]
    folds = [dataclasses.replace(config, **one) for one in fields]
    if count == 1:
        return folds[0].runs()
    named = [(fold, name, run) for fold, one in enumerate(folds) for name, run in one.runs()]
    return [(f"fold{fold}/{name}".rstrip("/"), run) for fold, name, run in named]


def chosen_fold(folds: Sequence[Fold], number: int | None) -> Fold:
    """Return the fold with this number; ConfigError if there is none."""
    if number is None or number >= len(folds):
        raise ConfigError(f"fold must be from 0 to {len(folds) - 1}; got {number}")
    return folds[number]


def details(evaluation: Evaluation, subjects: np.ndarray) -> dict[str, Any]:
    """Return the subject, the class and the prediction of each answer of a test."""
    return {
        "test_subjects": subjects.tolist(),
        "test_labels": evaluation.labels.tolist(),
        "test_predictions": evaluation.predictions.tolist(),
    }
