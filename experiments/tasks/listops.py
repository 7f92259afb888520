"""ListOps: evaluate nested lists of digits, token by token: ``experiments.train listops block``.

An operator is followed by its arguments, digits or further operators, and a bracket: ``[MAX 2 [SM 7
5 ] 0 ]`` is 2. The task is that of Nangia and Bowman (2018) as the Long Range Arena draws it (Tay
et al., 2021): a tree of at most ten levels, in which a node is an operator with a probability of a
quarter and has two to ten arguments. Expressions of 501 to 1,999 tokens are kept; brackets around
arguments, which carry no information, are not among the tokens, as there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch

from experiments.tasks.bucketed import BucketedConfig
from experiments.tasks.texts import Text, Texts, longest_first
from experiments.train.config import option
from experiments.train.task import Task

#: Tokens: the digits 0 to 9, the four operators and the closing bracket.
OPERATORS = ("MIN", "MAX", "MED", "SM")
DIGITS, CLOSE, TOKENS = 10, 14, 15
#: Levels of a tree, probability of an operator, arguments, and tokens of what is kept.
LEVELS, OPERATOR, ARGUMENTS, LENGTHS = 10, 0.25, (2, 10), (501, 1999)
#: Trees that are drawn at a time, and the seed of all of them: the data are the same in all runs.
_DRAWN, _SEED = 5000, 2021
_PRESET: dict[str, Any] = {
    "read": "mean", "norm_last": True, "width": 48, "hidden_size": 64, "shortest_period": 2.5,
    "epochs": 18, "batch_size": 16, "steps_per_batch": 32_000, "lr": 1.5e-3, "weight_decay": 0.1,
}  # fmt: skip


class _Level(NamedTuple):
    """The nodes of one level of many trees, in their order: (nodes,) int64 each."""

    tree: np.ndarray
    arguments: np.ndarray  # 0 of a digit

    @property
    def operators(self) -> np.ndarray:
        return self.arguments > 0

    @property
    def starts(self) -> np.ndarray:
        """The first argument of each operator, a node of the next level."""
        arguments = self.arguments[self.operators]
        return arguments.cumsum() - arguments


def draw(generator: np.random.Generator) -> Iterator[Text]:
    """Yield expressions with their values, without end."""
    while True:
        levels = list(_trees(generator))
        lengths = np.zeros(_DRAWN, dtype=np.int64)
        for level in levels:
            np.add.at(lengths, level.tree, 1 + level.operators)
        kept = (lengths >= LENGTHS[0]) & (lengths <= LENGTHS[1])
        tree = kept.cumsum() - 1  # the number of a tree among those kept
        levels = [
            _Level(tree[level.tree[of_kept]], level.arguments[of_kept])
            for level in levels
            if (of_kept := kept[level.tree]).any()
        ]
        tokens, values = _written(levels, generator)
        texts = np.split(tokens, lengths[kept].cumsum()[:-1])
        yield from zip(map(np.ndarray.tobytes, texts), values.tolist(), strict=True)


def _trees(generator: np.random.Generator) -> Iterator[_Level]:
    """Yield the levels of trees whose roots are operators."""
    tree = np.arange(_DRAWN)
    for level in range(1, LEVELS + 1):
        chance = 1 if level == 1 else OPERATOR if level < LEVELS else 0
        operators = generator.random(len(tree)) < chance
        arguments = operators * generator.integers(*ARGUMENTS, len(tree), endpoint=True)
        yield _Level(tree, arguments)
        tree = tree.repeat(arguments)


def _written(levels: list[_Level], generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw digits and operators; return the tokens of all trees, uint8, and their values."""
    tokens: list[np.ndarray] = []  # of the nodes of each level, from the last to the first
    sizes: list[np.ndarray] = []
    values: list[np.ndarray] = []
    for level in reversed(levels):
        digit = generator.integers(DIGITS, size=len(level.tree))
        operator = generator.integers(len(OPERATORS), size=len(level.tree))
        value, size = digit.copy(), 1 + level.operators
        if level.operators.any():
            own = operator[level.operators]
            value[level.operators] = _evaluated(own, values[-1], level)
            size[level.operators] += np.add.reduceat(sizes[-1], level.starts)
        tokens.append(np.where(level.operators, DIGITS + operator, digit))
        sizes.append(size)
        values.append(value)
    text = np.empty(sizes[-1].sum(), dtype=np.uint8)
    place = sizes[-1].cumsum() - sizes[-1]
    for level, token in zip(levels, reversed(tokens), strict=True):
        size = sizes.pop()
        text[place] = token
        text[(place + size)[level.operators] - 1] = CLOSE
        if sizes:  # behind the operator, one argument after the other
            before = sizes[-1].cumsum() - sizes[-1]
            first = place[level.operators] + 1 - before[level.starts]
            place = first.repeat(level.arguments[level.operators]) + before
    return text, values[-1]


def _evaluated(operator: np.ndarray, values: np.ndarray, level: _Level) -> np.ndarray:
    """Return the values of a level's operators, given those of the level below."""
    starts, counts = level.starts, level.arguments[level.operators]
    ordered = values[np.lexsort((values, np.arange(len(counts)).repeat(counts)))]
    middle = ordered[starts + (counts - 1) // 2] + ordered[starts + counts // 2]
    least, most = ordered[starts], ordered[starts + counts - 1]
    return np.choose(operator, [least, most, middle // 2, np.add.reduceat(values, starts) % DIGITS])


class ListOpsConfig(BucketedConfig):
    """Train on ListOps: name the value of a long expression."""

    sequences: int = option(96_000, "expressions for training", least=1)
    held_out: int = option(2000, "expressions for validation, and as many for the test", least=1)

    @classmethod
    def presets(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the defaults of expressions."""
        return _PRESET

    def task(self, device: torch.device) -> Task:
        """Return the expressions, with batches on ``device``."""
        drawn = draw(np.random.default_rng(_SEED))
        test, val, train = (
            [*islice(drawn, size)] for size in (self.held_out, self.held_out, self.sequences)
        )
        return self.task_of(
            device,
            Texts(train, self.seed),
            Texts(longest_first(val), self.seed),
            Texts(longest_first(test), self.seed),
            {"digest": hashlib.sha256(b"".join(tokens for tokens, _ in test)).hexdigest(),
             "chance": 1 / DIGITS},
            data_set="ListOps", input_size=TOKENS, num_classes=DIGITS, tokens=True,
        )  # fmt: skip
