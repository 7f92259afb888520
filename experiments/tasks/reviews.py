"""Reviews of films, byte by byte: ``experiments.train reviews block``.

It is the task *Text* of the Long Range Arena (Tay et al., 2021), without its limit of 4,096 bytes:
a network reads every review from its first byte to its last, and names it positive or negative.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from experiments.datasets.aclimdb import CLASSES, load_reviews
from experiments.sequences import SPLIT_SEED
from experiments.tasks.bucketed import BucketedConfig
from experiments.tasks.texts import Texts, longest_first
from experiments.train.config import DataConfig
from experiments.train.task import Task

#: Training reviews that validate.
VALIDATED = 2500
#: Blocks with fixed angles: they train three times as fast as those whose input chooses.
_PRESET: dict[str, Any] = {
    "read": "mean", "norm_last": True, "kernel_size": 6, "width": 64, "hidden_size": 96,
    "shortest_period": 2.5, "epochs": 8, "batch_size": 32, "steps_per_batch": 64_000, "lr": 6e-3,
    "weight_decay": 0.1, "dropout": 0.3,
}  # fmt: skip


class ReviewsConfig(BucketedConfig, DataConfig):
    """Train on reviews of films, byte by byte: positive or negative."""

    @classmethod
    def presets(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the defaults of reviews."""
        return _PRESET

    def task(self, device: torch.device) -> Task:
        """Return the reviews, with batches on ``device``."""
        reviews, digest = load_reviews(self.data)
        train = reviews["train"]
        order = np.random.RandomState(SPLIT_SEED).permutation(len(train))
        val, rest = np.split(order, [min(VALIDATED, len(order) // 10)])
        return self.task_of(
            device,
            Texts((train[i] for i in rest[: self.train_subset]), self.seed),
            Texts(longest_first(train[i] for i in val[: self.eval_subset]), self.seed),
            Texts(longest_first(reviews["test"][: self.eval_subset]), self.seed),
            {"digest": digest},
            data_set="Large Movie Review Dataset",
            input_size=256,
            num_classes=len(CLASSES),
            class_names=CLASSES,
            tokens=True,
        )
