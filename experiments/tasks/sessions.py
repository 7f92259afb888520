"""Sessions with a smartwatch as one sequence each: ``python -m experiments.train sessions``.

A session is all that one person did: seven exercises with each arm, fourteen recordings. A window
of each, joined in random order, makes a sequence of more than 10,000 steps. The network reads it
from beginning to end, and names each exercise after the last step of its window. Gradients flow
through all of it.

In training, each session and epoch has an order and windows of its own. A test has one session of
each person: the first window of each recording, in an order that is always the same. Both arms are
needed, as the recordings of some people are too short for seven of them to make 10,000 steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.action.dataset import Key, SequenceDataset
from experiments.action.folds import SPLIT_SEED
from experiments.tasks.action import PRESETS, ActionConfig, make_parts
from experiments.train.config import ConfigError, option
from experiments.train.objectives import Evaluation
from experiments.train.task import Batch, Task

#: Defaults that differ from the presets of the watch.
_PRESET: dict[str, Any] = {"frames": 900, "norm": "layer", "batch_size": 8}
#: Options that sessions fix.
_FIXED = {
    "data_set": "watch", "sampling": "window", "workers": 0, "train_subset": None,
    "eval_subset": None,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SessionsConfig(ActionConfig):
    """Train on sessions with a smartwatch: name each of fourteen exercises at its end."""

    sessions: int = option(8, "sessions to draw of each person in an epoch", least=1)

    @classmethod
    def of(cls, **given: Any) -> SessionsConfig:
        """Build a configuration with the presets of sessions as defaults."""
        return cls(**{**PRESETS["watch"], **_PRESET, **given})

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in _FIXED.items():
            if getattr(self, name) != value:
                raise ConfigError(
                    f"{name} must be {value!r} for sessions; got {getattr(self, name)!r}"
                )

    def task(self, device: torch.device) -> Task:
        """Return the sessions of one fold, with batches on ``device``."""
        recordings = self.load()
        parts = make_parts(self, recordings)
        train, val, test = (Sessions(part) for part in (parts.train, parts.val, parts.test))
        drawn = len(train) * self.sessions
        if drawn < self.batch_size:
            raise ConfigError(
                f"batch_size must be at most the {drawn} sessions of an epoch; "
                f"got {self.batch_size}"
            )
        steps_per_epoch = drawn // self.batch_size

        def load_shuffled(epoch: int, skip: int) -> Iterator[Batch]:
            order = np.random.default_rng((self.seed, epoch)).permutation(drawn)
            for step in range(skip, steps_per_epoch):
                chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
                variants = epoch * self.sessions + chosen // len(train)
                yield train.batch(chosen % len(train), variants, device)

        def load(data: Sessions) -> Iterator[Batch]:
            for start in range(0, len(data), self.batch_size):
                chosen = np.arange(start, min(start + self.batch_size, len(data)))
                yield data.batch(chosen, None, device)

        exercises = len(train.people[0])
        return Task(
            data_set="sessions of the seglearn watch",
            input_size=parts.train[Key(0)][0].shape[-1],
            num_classes=len(recordings.about.class_names),
            steps_per_epoch=steps_per_epoch,
            train_batches=load_shuffled,
            val_batches=(lambda: load(val)) if len(val) else None,
            test_batches=lambda: load(test),
            read_at=tuple(self.frames * (1 + index) for index in range(exercises)),
            facts={
                "source": recordings.about.source,
                "protocol": self.protocol,
                "fold": parts.fold.name,
                "folds": len(self.folds(recordings)),
                "sequence_length": self.frames * exercises,
                "exercises": exercises,
                "train_size": len(train),
                "val_size": len(val),
                "chance": 1 / len(recordings.about.class_names),
            },
            test_details=lambda evaluation: _details(evaluation, test.subjects, exercises),
        )


class Sessions:
    """Recordings with all of a person's as one sequence.

    Args:
        data: windows of these recordings; a test shows the first of each.

    Attributes:
        subjects: (len,) int64, the people.
        people: for each person, the sequences of ``data`` that make a session.
    """

    def __init__(self, data: SequenceDataset) -> None:
        self.data = data
        recordings, first = np.unique(data.sources, return_index=True)
        of = data.recordings.subjects[recordings]
        self.subjects = np.unique(of)
        self.people = [first[of == subject] for subject in self.subjects]

    def __len__(self) -> int:
        return len(self.people)

    def session(self, person: int, variant: int | None) -> tuple[Tensor, Tensor]:
        """Return a session, (steps, features) float32, and its exercises, (exercises,) int64.

        Args:
            person: index into ``people``.
            variant: in training, the number of an order with windows of its own; None at test.
        """
        subject = int(self.subjects[person])
        seed = (SPLIT_SEED, subject) if variant is None else (self.data.seed, variant, subject)
        order = np.random.default_rng(seed).permutation(self.people[person])
        windows = [self.data[Key(int(index), variant)] for index in order]
        steps = torch.cat([window.flatten(0, -2) for window, _ in windows])
        return steps, torch.tensor([label for _, label in windows])

    def batch(self, people: np.ndarray, variants: np.ndarray | None, device: torch.device) -> Batch:
        """Return sessions of ``people`` in these ``variants`` as a batch on ``device``."""
        numbers = [None] * len(people) if variants is None else variants.tolist()
        sessions = [self.session(*one) for one in zip(people.tolist(), numbers, strict=True)]
        steps, labels = zip(*sessions, strict=True)
        return torch.stack(steps).to(device), torch.stack(labels).to(device)


def _details(evaluation: Evaluation, subjects: np.ndarray, exercises: int) -> dict[str, Any]:
    return {
        "test_subjects": np.repeat(subjects, exercises).tolist(),
        "test_labels": evaluation.labels.tolist(),
        "test_predictions": evaluation.predictions.tolist(),
    }
