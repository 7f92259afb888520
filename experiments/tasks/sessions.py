"""Sessions with a smartwatch as one sequence each: ``experiments.train sessions irevrnn``.

A session is all that one person did: seven exercises with each arm, fourteen recordings. A window
of each, joined in random order, makes a sequence of more than 10,000 steps. The network reads it
from beginning to end, and names each exercise after the last step of its window. Gradients flow
through all of it.

In training, each session and epoch has an order and windows of its own. A test has one session of
each person: the first window of each recording, in an order that is always the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.action.dataset import SequenceDataset
from experiments.sequences import SPLIT_SEED, Key, Sequences
from experiments.tasks.action import PRESETS, ActionConfig, make_parts
from experiments.tasks.folds import details
from experiments.train.config import ConfigError, option
from experiments.train.task import Task

#: Defaults that differ from the presets of the watch.
_PRESET: dict[str, Any] = {"frames": 900, "norm": "layer", "batch_size": 8, "read": "last"}
#: Options that sessions fix.
_FIXED = {
    "data_set": "watch", "sampling": "window", "workers": 0, "train_subset": None,
    "eval_subset": None,
}  # fmt: skip


class SessionsConfig(ActionConfig):
    """Train on sessions with a smartwatch: name each of fourteen exercises at its end."""

    sessions: int = option(8, "sessions to draw of each person in an epoch", least=1)

    @classmethod
    def presets(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the defaults of sessions."""
        return PRESETS["watch"] | _PRESET

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in _FIXED.items():
            given = getattr(self, name)
            if given != value:
                raise ConfigError(f"{name} must be {value!r} for sessions; got {given!r}")

    def task(self, device: torch.device) -> Task:
        """Return the sessions of one fold, with batches on ``device``."""
        recordings = self.load()
        parts = make_parts(self, recordings)
        train, test = Sessions(parts.train, self.sessions), Sessions(parts.test)
        exercises = len(train.people[0])
        facts = {
            "sequence_length": self.frames * exercises,
            "exercises": exercises,
            "train_size": len(train.people),
            "chance": 1 / len(recordings.about.class_names),
        }
        return self.task_of(
            parts, (train, Sessions(parts.val), test), device, facts,
            data_set="sessions of the seglearn watch",
            read_at=tuple(self.frames * (1 + index) for index in range(exercises)),
            test_details=lambda test_of: details(test_of, np.repeat(test.subjects, exercises)),
        )  # fmt: skip


class Sessions(Sequences):
    """Windows of recordings, with ``repetitions`` of all of a person's as one sequence.

    An item is a session, (steps, features) float32, and its exercises, (exercises,) int64.

    Attributes:
        subjects: (P,) int64, the people.
        people: for each person, the sequences of ``data`` that make a session.
    """

    def __init__(self, data: SequenceDataset, repetitions: int = 1) -> None:
        self.data = data
        self.seed = data.seed
        self.repetitions = repetitions
        recordings, first = np.unique(data.sources, return_index=True)
        of = data.recordings.subjects[recordings]
        self.subjects = np.unique(of)
        self.people = [first[of == subject] for subject in self.subjects]

    def __len__(self) -> int:
        return len(self.people) * self.repetitions

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor]:
        repetition, person = divmod(key.sequence, len(self.people))
        subject = int(self.subjects[person])
        variant = None if key.epoch is None else key.epoch * self.repetitions + repetition
        seed = (SPLIT_SEED, subject) if variant is None else (self.seed, variant, subject)
        order = np.random.default_rng(seed).permutation(self.people[person])
        windows = [self.data[Key(int(index), variant)] for index in order]
        steps = torch.cat([window.flatten(0, -2) for window, _ in windows])
        return steps, torch.tensor([label for _, label in windows])
