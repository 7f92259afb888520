"""The training loop's view of data: batches, and the task that they belong to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import Tensor

from experiments.train.objectives import Classification, Evaluation, Objective

#: Float32 sequences, (batch, seq, feature); or (batch, clips, seq, feature), whose clips are
#: averaged when a sequence is classified; or int64 tokens, (batch, seq); or a pair of one of them
#: and the lengths, (batch,) int64.
Input: TypeAlias = Tensor | tuple[Tensor, Tensor]
#: Sequences and targets: labels, (batch,) int64, or (batch, answers) if a sequence has several
#: answers; numbers, (batch,) float32, in a regression.
Batch: TypeAlias = tuple[Input, Tensor]


#: Rising numbers of steps, after each of which an answer is read; or a slice of steps, of the last
#: ones or of all, each of which has an answer.
ReadAt: TypeAlias = tuple[int, ...] | slice


@dataclass(frozen=True)
class Task:
    """A data set, ready to train on; ``num_classes`` is 1 in a regression.

    Attributes:
        data_set: name of the data set in the results.
        train_batches: function of an epoch and a number of batches to skip that returns the rest.
            Their order depends on seed and epoch alone, so that a resumed run finds its place.
        val_batches: function that returns the validation data, in order; None without such data.
        test_batches: function that reads and returns the test data, in order; called once.
        facts: facts about the data, for the results.
        test_details: function that returns further results of a test.
        read_at: where answers are read, for (batch, answers, ...); None for one answer after the
            last step.
        tokens: whether steps are tokens, of which ``input_size`` are different.
        class_names: names of the classes, in the order of the labels, if they have any.
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
    read_at: ReadAt | None = None
    tokens: bool = False
    class_names: tuple[str, ...] = ()
