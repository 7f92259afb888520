"""Texts with a class each, as batches of nearly equal lengths: reviews and ListOps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning_fabric.utilities import move_data_to_device
from torch import Tensor

from experiments.sequences import Key, Sequences
from experiments.signals.dataset import batches_of_epoch, bucketed, in_order
from experiments.train.config import TrainConfig, option
from experiments.train.task import Task

#: The tokens of a text, (steps,) uint8, and its class.
Text = tuple[np.ndarray, int]


@dataclass(eq=False)
class Texts(Sequences):
    """Texts, each (steps,) int64 with its class; ``seed`` is that of their order."""

    texts: Sequence[Text]
    seed: int

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def lengths(self) -> np.ndarray:
        """Return the tokens of each text, (len,) int64."""
        return np.array([len(tokens) for tokens, _ in self.texts])

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        tokens, label = self.texts[key.sequence]
        return torch.from_numpy(tokens.astype(np.int64)), label


class TextsConfig(TrainConfig):
    """Train on texts that have a class each."""

    usual_network = "block"
    steps_per_batch: int | None = option(
        None, "tokens in a batch at most, padding included: batches of long texts are smaller "
        "then", least=1)  # fmt: skip

    def task_of(
        self, device: torch.device, train: Sequence[Text], val: Iterable[Text],
        test: Iterable[Text], facts: dict[str, Any], **kind: Any,
    ) -> Task:  # fmt: skip
        """Return texts as batches on ``device``; other arguments are those of the task."""

        def longest_first(some: Iterable[Text]) -> Texts:
            return Texts(sorted(some, key=lambda one: -len(one[0])), self.seed)

        trained, held_out, tested = Texts(train, self.seed), longest_first(val), longest_first(test)
        how = self.batch_size, self.steps_per_batch
        steps = min(len(batches_of_epoch(trained, *how, epoch)) for epoch in range(self.epochs))
        move = partial(move_data_to_device, device=device)
        facts |= {
            "sequence_length": int(max(one.lengths.max() for one in (trained, held_out, tested))),
            "train_size": len(trained), "val_size": len(held_out),
        }  # fmt: skip
        return Task(
            tokens=True,
            steps_per_epoch=steps,
            train_batches=lambda epoch, skip: map(
                move, bucketed(trained, *how, 0, epoch, range(skip, steps))
            ),
            val_batches=lambda: map(move, in_order(held_out, *how, 0)),
            test_batches=lambda: map(move, in_order(tested, *how, 0)),
            facts=facts,
            **kind,
        )
