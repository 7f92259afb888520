"""Texts of tokens with a class each: reviews and ListOps."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from experiments.sequences import Key, Sequences

#: The tokens of a text, and its class.
Text = tuple[bytes, int]


class Texts(Sequences):
    """Texts, each (steps,) int64 with its class; ``seed`` is that of their order."""

    def __init__(self, texts: Iterable[Text], seed: int) -> None:
        self.texts = list(texts)
        self.seed = seed
        self._lengths = np.array([len(tokens) for tokens, _ in self.texts])

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def lengths(self) -> np.ndarray:
        """Return the tokens of each text, (len,) int64."""
        return self._lengths

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        tokens, label = self.texts[key.sequence]
        return torch.from_numpy(np.frombuffer(tokens, np.uint8).astype(np.int64)), label


def longest_first(texts: Iterable[Text]) -> list[Text]:
    """Return texts from the longest to the shortest."""
    return sorted(texts, key=lambda text: -len(text[0]))
