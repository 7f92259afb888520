"""What the training loop knows of data: batches, the task they come from, what was made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

#: Sequences in float32 and their labels, (batch,) int64. The sequences are (batch, seq, feature);
#: or (batch, clips, seq, feature), for clips whose probabilities are averaged at test; or a pair of
#: either and the lengths, (batch,) int64, if they differ.
Sequences: TypeAlias = Tensor | tuple[Tensor, Tensor]
Batch: TypeAlias = tuple[Sequences, Tensor]


@dataclass
class Evaluation:
    """What a model made of N sequences.

    Attributes:
        loss: mean cross entropy.
        accuracy: share of right predictions.
        log_probabilities: (N, classes).
        predictions, labels: (N,) int64.
    """

    loss: float
    accuracy: float
    log_probabilities: Tensor
    predictions: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Task:
    """All that the training loop knows of a data set.

    Attributes:
        data_set: its name, as it goes into the results.
        input_size: features of a step.
        num_classes: classes to tell apart.
        steps_per_epoch: batches of an epoch.
        train_batches: given an epoch and how many of its batches to skip, the batches left. Their
            order depends on seed and epoch alone, so a resumed run finds its place again.
        val_batches: the validation data, in order; None if there is none.
        test_batches: the test data, in order, read when this is called: once, for the final figure.
        facts: more about the data, for the results.
        test_details: more figures of the test, for the results.
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
