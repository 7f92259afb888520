"""Tasks whose sequences differ much in length, in batches of nearly equal lengths."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from lightning_fabric.utilities import move_data_to_device

from experiments.sequences import Sequences, batches_of_epoch, bucketed, in_order
from experiments.train.config import TrainConfig, option
from experiments.train.task import Task


class BucketedConfig(TrainConfig):
    """Train on sequences of different lengths."""

    usual_network = "block"
    steps_per_batch: int | None = option(
        None, "steps in a batch at most, padding included: batches of long sequences are smaller "
        "then", least=1)  # fmt: skip

    def task_of(
        self, device: torch.device, train: Sequences, val: Sequences, test: Sequences,
        facts: dict[str, Any], *, workers: int = 0, **kind: Any,
    ) -> Task:  # fmt: skip
        """Return sequences as batches on ``device``, made by ``workers`` processes.

        Those of ``val`` and ``test`` should be in order from the longest to the shortest. Other
        arguments are those of the task.
        """
        steps = self._steps_per_epoch(train)
        move = partial(move_data_to_device, device=device)
        how = self.batch_size, self.steps_per_batch, workers
        sizes = {
            "train_size": len(train), "val_size": len(val),
            "sequence_length": int(max(part.lengths.max() for part in (train, val, test))),
        }  # fmt: skip
        return Task(
            steps_per_epoch=steps,
            train_batches=lambda epoch, skip: map(
                move, bucketed(train, *how, epoch, range(skip, steps))
            ),
            val_batches=lambda: map(move, in_order(val, *how)),
            test_batches=lambda: map(move, in_order(test, *how)),
            facts=sizes | facts,
            **kind,
        )

    def _steps_per_epoch(self, train: Sequences) -> int:
        """Return the number of batches that each epoch has at least; it takes no more."""
        full = self.full_batches(len(train))
        if self.steps_per_batch is None:
            return full
        batches = partial(batches_of_epoch, train, self.batch_size, self.steps_per_batch)
        return min(len(batches(epoch)) for epoch in range(self.epochs))
