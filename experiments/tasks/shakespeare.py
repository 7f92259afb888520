"""Tiny Shakespeare, character by character: ``experiments.train shakespeare block``.

The first nine tenths of the text are for training, but for their last part, which validates; the
last tenth is the test, as usual. Training sequences are windows of the text; validation and test
read theirs in one piece, from beginning to end. Windows are longer than most memories, as states
would go on to grow there that have not found their size in training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.datasets.shakespeare import load_shakespeare
from experiments.train.config import DataConfig, TrainConfig, option
from experiments.train.objectives import CrossEntropy
from experiments.train.options import with_default
from experiments.train.task import Batch, Task

#: Characters before the test that validate.
VALIDATED = 25_000
_PRESET: dict[str, Any] = {
    "read": "last", "turns": "input", "forgets": "input", "input_gate": True, "gate_lr_scale": 1.0,
    "width": 128, "hidden_size": 128, "longest_memory": 200.0, "epochs": 20, "batch_size": 8,
    "lr": 6e-3, "weight_decay": 0.1, "dropout": 0.2,
}  # fmt: skip


class ShakespeareConfig(TrainConfig):
    """Train on Tiny Shakespeare: predict each character from all those before it."""

    usual_network = "block"
    data: Path | None = with_default(DataConfig, "data", None)
    window: int = option(1024, "characters of a training sequence", least=1)

    @classmethod
    def presets(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the defaults of a text."""
        return _PRESET

    def task(self, device: torch.device) -> Task:
        """Return the text as tokens on ``device``: a character has the next one for its target."""
        text = load_shakespeare(self.data)
        characters, codes = np.unique(list(text), return_inverse=True)
        tokens = torch.from_numpy(codes).to(device)
        end = len(tokens) * 9 // 10
        train, val, test = tokens.split([end - VALIDATED, VALIDATED, len(tokens) - end])

        def whole(part: Tensor) -> Iterator[Batch]:
            yield part[None, :-1], part[None, 1:]

        windows = len(train) // self.window - 1  # behind an offset of less than one

        def shuffled(epoch: int, skip: int) -> Iterator[Batch]:
            generator = np.random.default_rng((self.seed, epoch))
            first = generator.integers(self.window)
            starts = torch.from_numpy(first + self.window * generator.permutation(windows))
            for some in starts.split(self.batch_size)[skip : self.full_batches(windows)]:
                rows = tokens[some[:, None] + torch.arange(1 + self.window)]
                yield rows[:, :-1], rows[:, 1:]

        return Task(
            data_set="Tiny Shakespeare",
            input_size=len(characters),
            num_classes=len(characters),
            class_names=tuple(characters.tolist()),
            tokens=True,
            read_at=slice(None),
            objective=CrossEntropy(),
            steps_per_epoch=self.full_batches(windows),
            train_batches=shuffled,
            val_batches=lambda: whole(val),
            test_batches=lambda: whole(test),
            facts={
                "sequence_length": self.window, "characters": len(tokens), "test_steps": len(test),
                "train_size": windows,
            },
        )  # fmt: skip
