"""Tasks in which a network has to choose what it keeps: selective copying, counting and recall.

Selective copying is that of Gu and Dao (2023), after Jing et al. (2019); counting, with parity as
its smallest case, that of Grazzi et al. (2025); recall that of Arora et al. (2024, MQAR). Sequences
are generated as those of :mod:`experiments.tasks.synthetic`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch

from experiments.tasks.synthetic import SyntheticConfig
from experiments.train.config import ConfigError, option
from experiments.train.task import Task


class SelectionConfig(SyntheticConfig):
    """Train on sequences of which few steps matter: one-hot tokens, and classes for answers."""

    usual_network = "block"
    #: The name of the data.
    name: ClassVar[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length < self.shortest():
            raise ConfigError(f"length must be at least {self.shortest()}; got {self.length}")

    @classmethod
    def presets(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the defaults: answers after single steps."""
        return {**super().presets(given), "read": "last"}

    @abstractmethod
    def sizes(self) -> tuple[int, int, int, int | None]:
        """Return how many tokens there are, classes, steps beside T, and answers at the end.

        Without a number of answers, every step has one.
        """

    def task(self, device: torch.device) -> Task:
        """Return generated sequences as batches on ``device``."""
        tokens, classes, more, answers = self.sizes()
        return self.task_of(
            device,
            data_set=self.name,
            input_size=tokens,
            num_classes=classes,
            read_at=slice(answers and -answers, None),
            facts={"sequence_length": self.length + more, "chance": 1 / classes},
        )


class SelectiveCopyConfig(SelectionConfig):
    """Train on selective copying: repeat symbols that stand at random places among blanks."""

    name = "selective-copy"
    length: int = option(4096, "steps in which the symbols are shown", least=2)
    symbols: int = option(16, "symbols to repeat", least=1)
    kinds: int = option(14, "different symbols", least=2)

    def shortest(self) -> int:
        """Return the length that a growing length begins with."""
        return 2 * self.symbols

    def draw(self, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw symbols at random places of T steps, then a signal for each of them.

        Steps are one-hot, (count, T + symbols, kinds + 2): the kinds, the blank and the signal.
        Targets are the symbols in their order, (count, symbols) int64.
        """
        symbols = generator.integers(self.kinds, size=(count, self.symbols))
        shown = np.full((count, self.length + self.symbols), self.kinds)
        shown[:, self.length :] = self.kinds + 1
        for row, own in zip(shown, symbols, strict=True):
            row[np.sort(generator.choice(self.length, self.symbols, replace=False))] = own
        return one_hot(shown, self.kinds + 2), symbols

    def sizes(self) -> tuple[int, int, int, int]:
        return self.kinds + 2, self.kinds, self.symbols, self.symbols


class CountingConfig(SelectionConfig):
    """Train on counting: name the sum of all numbers so far, modulo n, after every step."""

    name = "counting"
    length: int = option(64, "numbers of a sequence", least=2)
    modulus: int = option(2, "n; 2 is parity", least=2)

    def shortest(self) -> int:
        """Return the length that a growing length begins with."""
        return 2

    def draw(self, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw numbers below n behind a signal: one-hot (count, 1 + T, n + 1).

        Targets are the sums modulo n so far, (count, 1 + T) int64.
        """
        numbers = generator.integers(self.modulus, size=(count, 1 + self.length))
        numbers[:, 0] = 0
        sums = numbers.cumsum(1) % self.modulus
        numbers[:, 0] = self.modulus
        return one_hot(numbers, self.modulus + 1), sums

    def sizes(self) -> tuple[int, int, int, None]:
        return self.modulus + 1, self.modulus, 1, None


class RecallConfig(SelectionConfig):
    """Train on associative recall: keys with their values, then the keys again, in any order."""

    name = "recall"
    length: int = option(64, "steps before the keys come again", least=2)
    pairs: int = option(4, "keys of a sequence, each with a value", least=1)
    kinds: int = option(32, "different keys, and values", least=2)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pairs > self.kinds:
            raise ConfigError(f"pairs must be at most kinds, {self.kinds}; got {self.pairs}")

    def shortest(self) -> int:
        """Return the length that a growing length begins with."""
        return 2 * self.pairs

    def draw(self, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw pairs at random places of T steps among blanks, and then their keys.

        Steps are one-hot, (count, T + pairs, 2 * kinds + 1): keys, values and the blank. Targets
        are the values of the keys at the end, (count, pairs) int64.
        """
        blank = 2 * self.kinds
        shown = np.full((count, self.length + self.pairs), blank)
        targets = np.empty((count, self.pairs), dtype=np.int64)
        for row, wanted in zip(shown, targets, strict=True):
            keys = generator.choice(self.kinds, self.pairs, replace=False)
            values = generator.integers(self.kinds, size=self.pairs)
            free = self.length - self.pairs  # a pair takes two steps
            places = np.sort(generator.choice(free, self.pairs, replace=False))
            places += np.arange(self.pairs)
            row[places], row[places + 1] = keys, self.kinds + values
            order = generator.permutation(self.pairs)
            row[self.length :], wanted[:] = keys[order], values[order]
        return one_hot(shown, blank + 1), targets

    def sizes(self) -> tuple[int, int, int, int]:
        return 2 * self.kinds + 1, self.kinds, self.pairs, self.pairs


def one_hot(tokens: np.ndarray, kinds: int) -> np.ndarray:
    """Return tokens (count, steps) as (count, steps, kinds) float32."""
    return np.eye(kinds, dtype=np.float32)[tokens]
