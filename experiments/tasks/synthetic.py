"""Two tasks that nothing but memory solves, at any length: adding, and copying.

Both come from Hochreiter and Schmidhuber (1997), in the form of Arjovsky et al. (2016). Sequences
are made up, batch by batch: no batch of training comes twice. Validation and test have seeds of
their own, the same for every run.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from experiments.train.config import ConfigError, TrainConfig, option
from experiments.train.objectives import Classification, Regression
from experiments.train.task import Batch, Task

#: Symbols to be remembered in the copying task, and how many kinds of them there are.
REMEMBERED, KINDS = 10, 8
#: First number of the seeds of each part.
_TRAIN, _VAL, _TEST = range(3)
#: What differs from the defaults of a run.
_PRESET: dict[str, Any] = {
    "norm": "layer", "hidden_size": 64, "num_layers": 2, "calibrate": 10,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig(TrainConfig):
    """Train on sequences that are made up."""

    length: int = option(5000, "T, the steps to remember over", least=2)
    batches: int = option(100, "batches that make an epoch", least=1)
    held_out: int = option(1000, "sequences for validation, and as many for the test", least=1)

    @classmethod
    def of(cls, **given: Any) -> TrainConfig:
        """The configuration with the preset of these tasks, where nothing else is given."""
        return cls(**{**_PRESET, **given})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("train_subset", "eval_subset"):
            if getattr(self, name) is not None:
                raise ConfigError(
                    f"{name} must be left away where sequences are made up (batches and held_out "
                    f"say how many); got {getattr(self, name)}"
                )

    @abstractmethod
    def draw(self, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Make up sequences.

        Returns:
            (count, steps, features) float32, and their targets.
        """

    def train_batches(self, device: torch.device, epoch: int, skip: int) -> Iterator[Batch]:
        """The batches of an epoch, without the first ``skip``."""
        for index in range(skip, self.batches):
            yield self._batch(device, self.batch_size, (_TRAIN, self.seed, epoch, index))

    def held_out_batches(self, device: torch.device, part: int) -> Iterator[Batch]:
        """The sequences for validation or test, which depend on ``part`` alone."""
        for start in range(0, self.held_out, self.batch_size):
            count = min(self.batch_size, self.held_out - start)
            yield self._batch(device, count, (part, start))

    def _batch(self, device: torch.device, count: int, seed: tuple[int, ...]) -> Batch:
        x, y = self.draw(count, np.random.default_rng(seed))
        return torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)

    def _parts(self, device: torch.device) -> dict[str, Any]:
        """What both tasks have in common."""
        return {
            "steps_per_epoch": self.batches,
            "train_batches": lambda epoch, skip: self.train_batches(device, epoch, skip),
            "val_batches": lambda: self.held_out_batches(device, _VAL),
            "test_batches": lambda: self.held_out_batches(device, _TEST),
        }


@dataclass(frozen=True, kw_only=True)
class AddingConfig(SyntheticConfig):
    """Train on the adding task: the sum of the two numbers that were marked."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label_smoothing:
            raise ConfigError(
                f"label_smoothing must be 0 where there are no classes; got {self.label_smoothing}"
            )

    def draw(self, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Numbers from [0, 1), and marks: one in each half of the sequence.

        Returns:
            (count, T, 2) float32, and the sums of the marked numbers, (count,) float32.
        """
        numbers = generator.random((count, self.length), dtype=np.float32)
        half, rows = self.length // 2, np.arange(count)
        first = generator.integers(half, size=count)
        second = generator.integers(half, self.length, size=count)
        marks = np.zeros_like(numbers)
        marks[rows, first] = marks[rows, second] = 1
        return np.stack([numbers, marks], axis=-1), numbers[rows, first] + numbers[rows, second]

    def task(self, device: torch.device) -> Task:
        """Made-up sequences as batches on ``device``."""
        return Task(
            data_set="adding",
            input_size=2,
            num_classes=1,
            objective=Regression(),
            # Always to answer 1 has the variance of the sum of two uniform numbers as its error.
            facts={"sequence_length": self.length, "chance": 1 / 6},
            **self._parts(device),
        )


@dataclass(frozen=True, kw_only=True)
class CopyConfig(SyntheticConfig):
    """Train on the copying task: repeat ten symbols after many blank steps."""

    def draw(self, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Ten symbols, T - 1 blanks, a signal, and ten blanks in which they are to be repeated.

        Returns:
            (count, T + 20, 10) float32, one-hot: eight symbols, the blank and the signal; and the
            symbols, (count, 10) int64.
        """
        symbols = generator.integers(KINDS, size=(count, REMEMBERED))
        shown = np.full((count, self.length + 2 * REMEMBERED), KINDS)
        shown[:, :REMEMBERED] = symbols
        shown[:, -REMEMBERED - 1] = KINDS + 1
        return np.eye(KINDS + 2, dtype=np.float32)[shown], symbols

    def task(self, device: torch.device) -> Task:
        """Made-up sequences as batches on ``device``, of which the last ten steps are read."""
        steps = self.length + 2 * REMEMBERED
        return Task(
            data_set="copy",
            input_size=KINDS + 2,
            num_classes=KINDS,
            objective=Classification(),
            read_at=tuple(range(steps - REMEMBERED + 1, steps + 1)),
            facts={"sequence_length": steps, "chance": 1 / KINDS},
            **self._parts(device),
        )
