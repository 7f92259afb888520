"""Reviews of films, byte by byte: ``experiments.train reviews block``.

It is the task *Text* of the Long Range Arena (Tay et al., 2021), without its limit of 4,096 bytes:
a network reads every review from its first byte to its last, and names it positive or negative.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor

from experiments.datasets.aclimdb import CLASSES, Review, load_reviews
from experiments.sequences import SPLIT_SEED, Key, Sequences
from experiments.signals.dataset import batches_of_epoch, bucketed, in_order
from experiments.train.config import DataConfig, option
from experiments.train.task import Task

#: Training reviews that validate.
VALIDATED = 2500
#: Blocks with fixed angles: they train three times as fast as those whose input chooses.
_PRESET: dict[str, Any] = {
    "read": "mean", "norm_last": True, "kernel_size": 6, "width": 64, "hidden_size": 96,
    "shortest_period": 2.5, "epochs": 8, "batch_size": 32, "steps_per_batch": 64_000, "lr": 6e-3,
    "weight_decay": 0.1, "dropout": 0.3,
}  # fmt: skip


@dataclass(eq=False)
class Reviews(Sequences):
    """Reviews, each (bytes,) int64 with its label; ``seed`` is that of their order."""

    reviews: Sequence[Review]
    seed: int

    def __len__(self) -> int:
        return len(self.reviews)

    @property
    def lengths(self) -> np.ndarray:
        """Return the bytes of each review, (len,) int64."""
        return np.array([len(review.text) for review in self.reviews])

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        review = self.reviews[key.sequence]
        return torch.from_numpy(np.frombuffer(review.text, np.uint8).astype(np.int64)), review.label


class ReviewsConfig(DataConfig):
    """Train on reviews of films, byte by byte: positive or negative."""

    usual_network = "block"
    steps_per_batch: int | None = option(
        None, "bytes in a batch at most, padding included: batches of long reviews are smaller "
        "then", least=1)  # fmt: skip

    @classmethod
    def presets(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the defaults of reviews."""
        return _PRESET

    def task(self, device: torch.device) -> Task:
        """Return the reviews, with batches on ``device``."""
        reviews, digest = load_reviews(self.data)
        order = np.random.RandomState(SPLIT_SEED).permutation(len(reviews["train"]))
        val, rest = np.split(order, [min(VALIDATED, len(order) // 10)])
        train = Reviews([reviews["train"][i] for i in rest[: self.train_subset]], self.seed)

        def longest_first(some: Sequence[Review]) -> Reviews:
            ordered = sorted(some[: self.eval_subset], key=lambda one: -len(one.text))
            return Reviews(ordered, self.seed)

        held_out = longest_first([reviews["train"][i] for i in val])
        test = longest_first(reviews["test"])
        how = self.batch_size, self.steps_per_batch
        steps = min(len(batches_of_epoch(train, *how, epoch)) for epoch in range(self.epochs))
        move = partial(move_data_to_device, device=device)
        return Task(
            data_set="Large Movie Review Dataset",
            input_size=256,
            num_classes=len(CLASSES),
            class_names=CLASSES,
            tokens=True,
            steps_per_epoch=steps,
            train_batches=lambda epoch, skip: map(
                move, bucketed(train, *how, 0, epoch, range(skip, steps))
            ),
            val_batches=lambda: map(move, in_order(held_out, *how, 0)),
            test_batches=lambda: map(move, in_order(test, *how, 0)),
            facts={
                "sequence_length": int(max(one.lengths.max() for one in (train, held_out, test))),
                "train_size": len(train), "val_size": len(held_out), "digest": digest,
            },
        )  # fmt: skip
