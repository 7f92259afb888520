"""What the training loop knows of data: batches, and the task they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import Tensor

from experiments.train.objectives import Classification, Evaluation, Objective

#: Sequences in float32 and their targets: labels, (batch,) int64, or (batch, answers) where several
#: answers are asked for; numbers, (batch,) float32, in a regression. The sequences are
#: (batch, seq, feature); or (batch, clips, seq, feature), for clips whose answers are averaged at
#: test; or a pair of either and the lengths, (batch,) int64, if they differ.
Sequences: TypeAlias = Tensor | tuple[Tensor, Tensor]
Batch: TypeAlias = tuple[Sequences, Tensor]


@dataclass(frozen=True)
class Task:
    """All that the training loop knows of a data set.

    Attributes:
        data_set: its name, as it goes into the results.
        input_size: features of a step.
        num_classes: classes to tell apart; 1 in a regression.
        steps_per_epoch: batches of an epoch.
        train_batches: given an epoch and how many of its batches to skip, the batches left. Their
            order depends on seed and epoch alone, so a resumed run finds its place again.
        val_batches: the validation data, in order; None if there is none.
        test_batches: the test data, in order, read when this is called: once, for the final figure.
        facts: more about the data, for the results.
        test_details: more figures of the test, for the results.
        objective: the loss, and what the network is judged by.
        read_at: the network answers after so many steps, at each of these, (batch, answers, ...);
            None if once, at the end.
    """

    data_set: str
    input_size: int
    num_classes: int
    steps_per_epoch: int
    train_batches: Callable[[int, int], Iterator[Batch]]
    val_batches: Callable[[], Iterator[Batch]] | None
    test_batches: Callable[[], Iterator[Batch]]
    facts: dict[str, Any]
    test_details: Callable[[Evaluation], dict[str, Any]] | None = None
    objective: Objective = field(default_factory=Classification)
    read_at: tuple[int, ...] | None = None
