"""The adding and the copying task, which test memory alone, at any length.

Both come from Hochreiter and Schmidhuber (1997), in the form of Arjovsky et al. (2016); unlike
there, copying is judged by the last ten steps alone. Sequences are generated batch by batch, and no
training batch appears twice. Validation and test have seeds of their own, the same for all runs
with one batch size.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from experiments.train.config import ConfigError, TrainConfig, option
from experiments.train.objectives import Regression
from experiments.train.task import Batch, Task

#: Symbols to remember in the copying task, and the number of different ones.
REMEMBERED, KINDS = 10, 8
#: Length of the sequences that a growing length begins with, and most of them in a batch.
SHORTEST, MOST_SEQUENCES = 10, 64
#: First number of the seeds of each part.
_TRAIN, _VAL, _TEST = range(3)


class SyntheticConfig(TrainConfig):
    """Train on generated sequences."""

    length: int = option(5000, "T, the number of steps to remember over", least=2)
    growth: float = option(
        1.0,
        "factor by which training sequences grow from epoch to epoch, up to --length; batches of "
        "shorter ones have more of them",
        least=1,
    )
    full_epochs: int = option(1, "epochs, the last ones, with sequences of --length", least=1)
    batches: int = option(100, "batches of an epoch", least=1)
    held_out: int = option(1000, "sequences for validation, and as many for the test", least=1)
    test_length: int | None = option(
        None, "T of validation and test; None takes --length", least=2)  # fmt: skip

    @classmethod
    def presets(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the defaults of generated sequences."""
        return {"hidden_size": 64, "num_layers": 2, "norm": "layer", "calibrate": 10}

    def length_at(self, epoch: int) -> int:
        """Return the length of the training sequences of an epoch."""
        shorter = max(0, self.epochs - self.full_epochs - epoch)
        length = math.ceil(self.length / self.growth**shorter)
        return min(max(length, self.shortest()), self.length)

    def share_of_lr(self, epoch: float) -> float:
        """Return one over the length, from SHORTEST steps on; it falls to 0 at the end.

        What an error of an angle does grows with the length.
        """
        left = (self.epochs - epoch) / self.full_epochs
        return min(1.0, SHORTEST / self.length_at(int(epoch))) * min(1.0, left)

    def shortest(self) -> int:
        """Return the length that a growing length begins with."""
        return SHORTEST

    @abstractmethod
    def draw(self, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return sequences, (count, steps, features) float32, and their targets."""

    def task_of(self, device: torch.device, **kind: Any) -> Task:
        """Return generated sequences as batches on ``device``."""

        def batch(config: SyntheticConfig, count: int, *seed: int) -> Batch:
            x, y = config.draw(count, np.random.default_rng(seed))
            return torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)

        def train(epoch: int, skip: int) -> Iterator[Batch]:
            shorter = replace(self, length=self.length_at(epoch))
            times = min(self.length // shorter.length, MOST_SEQUENCES // self.batch_size)
            for index in range(skip, self.batches):
                count = self.batch_size * max(1, times)
                yield batch(shorter, count, _TRAIN, self.seed, epoch, index)

        tested = replace(self, length=self.test_length or self.length)

        def held_out(part: int) -> Iterator[Batch]:
            for start in range(0, self.held_out, self.batch_size):
                yield batch(tested, min(self.batch_size, self.held_out - start), part, start)

        return Task(
            steps_per_epoch=self.batches,
            train_batches=train,
            val_batches=lambda: held_out(_VAL),
            test_batches=lambda: held_out(_TEST),
            **kind,
        )


class AddingConfig(SyntheticConfig):
    """Train on the adding task: name the sum of the two marked numbers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label_smoothing:
            raise ConfigError(
                f"label_smoothing must be 0 where there are no classes; got {self.label_smoothing}"
            )

    def draw(self, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw numbers from [0, 1), and one mark in each half of the sequence: (count, T, 2).

        The targets are the sums of the marked numbers, (count,) float32.
        """
        numbers = generator.random((count, self.length), dtype=np.float32)
        half, rows = self.length // 2, np.arange(count)
        first = generator.integers(half, size=count)
        second = generator.integers(half, self.length, size=count)
        marks = np.zeros_like(numbers)
        marks[rows, first] = marks[rows, second] = 1
        return np.stack([numbers, marks], axis=-1), numbers[rows, first] + numbers[rows, second]

    def task(self, device: torch.device) -> Task:
        """Return generated sequences as batches on ``device``."""
        return self.task_of(
            device,
            data_set="adding",
            input_size=2,
            num_classes=1,
            objective=Regression(),
            # The error of always answering 1: the variance of the sum of two uniform numbers.
            facts={"sequence_length": self.length, "chance": 1 / 6},
        )


class CopyConfig(SyntheticConfig):
    """Train on the copying task: repeat ten symbols after many blank steps."""

    @classmethod
    def presets(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the defaults of generated sequences with several answers."""
        return {**super().presets(given), "read": "last"}

    def draw(self, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw ten symbols, T - 1 blanks, a signal, and ten blanks in which to repeat them.

        Steps are one-hot, (count, T + 20, 10): eight symbols, the blank and the signal. Targets are
        the symbols, (count, 10) int64.
        """
        symbols = generator.integers(KINDS, size=(count, REMEMBERED))
        shown = np.full((count, self.length + 2 * REMEMBERED), KINDS)
        shown[:, :REMEMBERED] = symbols
        shown[:, -REMEMBERED - 1] = KINDS + 1
        return np.eye(KINDS + 2, dtype=np.float32)[shown], symbols

    def task(self, device: torch.device) -> Task:
        """Return generated sequences on ``device``, of which the last ten steps are read."""
        return self.task_of(
            device,
            data_set="copy",
            input_size=KINDS + 2,
            num_classes=KINDS,
            read_at=slice(-REMEMBERED, None),
            facts={"sequence_length": self.length + 2 * REMEMBERED, "chance": 1 / KINDS},
        )
