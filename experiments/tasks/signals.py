"""Classification of whole signals: ``python -m experiments.train signals block``.

ECG recordings (``--data-set cinc2017``), spoken digits (``--data-set fsdd``), or recordings of your
own (``--folder DIR``; :mod:`experiments.datasets.own_folder` describes such a folder). Sequences
are whole recordings, thousands of steps long and of different lengths, which gated blocks read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.datasets import data_root
from experiments.datasets.own_folder import load_folder
from experiments.datasets.recordings import Recordings, open_recordings
from experiments.sequences import Fold
from experiments.signals.bootstrap import interval
from experiments.signals.dataset import SignalDataset, longest_first
from experiments.signals.folds import SPLITS, make_folds
from experiments.tasks.bucketed import BucketedConfig
from experiments.tasks.folds import chosen_fold, details, runs_of_folds
from experiments.train.config import ConfigError, DataConfig, TrainConfig, option
from experiments.train.objectives import Classification, Evaluation, MeanF1
from experiments.train.task import Task
from irevrnn.kernels.jit.compiler import say

_PRESET: dict[str, Any] = {
    "epochs": 16, "batch_size": 32, "lr": 8e-3, "weight_decay": 0.05, "hidden_size": 48,
    "width": 32, "read": "mean",
}  # fmt: skip
#: Defaults of each data set. The sign of an ECG depends on how the device is held, that of sound on
#: the microphone.
PRESETS: dict[str, dict[str, Any]] = {
    "cinc2017": {
        **_PRESET, "flip": 0.5, "scale": 0.2, "longest_period": 1200.0,
        "longest_memory": 2000.0,
    },
    # Formants lie between 250 and 3,000 Hz, periods of 32 to 2.7 samples.
    "fsdd": {
        **_PRESET, "flip": 0.5, "scale": 0.2, "shortest_period": 2.5, "longest_period": 800.0,
    },
    "folder": _PRESET,
}  # fmt: skip
#: Classes whose mean F1 score is the figure: the score of the challenge leaves noise out.
SCORED = {"cinc2017": 3}


class SignalsConfig(BucketedConfig, DataConfig):
    """Train on whole signals: ECG, spoken digits or recordings of your own."""

    # the data
    data_set: str = option(
        "cinc2017", "the data set; each has defaults of its own", choices=tuple(SPLITS)
    )
    folder: str | None = option(None, "a folder of your own recordings, as data set")
    split: str | None = option(None, "folds, official or speaker (else the data set's)")
    fold: int | None = option(None, "this fold alone, from 0 (all of them, if not given)", least=0)
    folds: int = option(5, "parts of the split into folds, each of which is tested once", least=2)

    # augmentation
    flip: float = option(0.0, "probability of reversing the sign", least=0, most=1)
    scale: float = option(0.0, "larger or smaller by up to that share", least=0, most=1)

    # the run
    workers: int = option(0, "processes that make batches", least=0, operational=True)

    @classmethod
    def presets(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the defaults of the data set."""
        if given.get("folder") is not None:
            return {"data_set": "folder"} | PRESETS["folder"]
        return PRESETS.get(given.get("data_set", "cinc2017"), {})

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.folder is None) == (self.data_set == "folder"):
            raise ConfigError(
                "choose either a folder or a data_set other than 'folder'; got folder "
                f"{self.folder!r}, data_set {self.data_set!r}"
            )
        splits = SPLITS[self.data_set]
        if self.split is None:
            object.__setattr__(self, "split", splits[0])
        if self.split not in splits:
            allowed = ", ".join(splits)
            raise ConfigError(
                f"split must be one of {allowed} for {self.data_set}; got {self.split!r}"
            )

    def load(self) -> Recordings:
        """Load the recordings, or raise a DataError."""
        if self.folder is not None:
            return load_folder(Path(self.folder))
        return open_recordings(data_root(self.data) / self.data_set)

    def objective(self) -> Classification:
        """Return how classifiers are compared on the data set."""
        scored = SCORED.get(self.data_set)
        return Classification() if scored is None else MeanF1(scored)

    def runs(self) -> list[tuple[str, TrainConfig]]:
        """Return a run for each fold and seed."""
        if self.fold is not None:
            return super().runs()
        return runs_of_folds(self, len(self._folds(self.load())))

    def _folds(self, recordings: Recordings) -> list[Fold]:
        try:
            return make_folds(recordings, str(self.split), self.folds)
        except ConfigError as error:
            if not recordings.rejected:
                raise
            left_out = f"{len(recordings.rejected)} left out, such as {recordings.rejected[0]}"
            raise ConfigError(f"{error} ({left_out})") from error

    def task(self, device: torch.device) -> Task:
        """Return one fold of the split, with batches on ``device``."""
        recordings = self.load()
        if self.folder is not None:
            for one in recordings.rejected:
                say(f"left out: {one}")
            _warn_of_constants(recordings)
        folds = self._folds(recordings)
        fold = chosen_fold(folds, self.fold)
        train = SignalDataset(
            recordings, fold.train[: self.train_subset], self.flip, self.scale, self.seed
        )
        val, test = (
            replace(train, chosen=longest_first(recordings, part[: self.eval_subset]))
            for part in (fold.val, fold.test)
        )
        objective = self.objective()
        return self.task_of(
            device, train, val, test,
            {
                "source": recordings.about.source, "split": self.split, "fold": fold.name,
                "folds": len(folds), "recordings": len(recordings), "digest": recordings.digest,
                "rejected": len(recordings.rejected),
            },
            workers=self.workers,
            data_set=recordings.about.data_set,
            input_size=recordings.frames.shape[1],
            num_classes=len(recordings.about.class_names),
            class_names=tuple(recordings.about.class_names),
            test_details=lambda evaluation: _details(objective, evaluation, test),
            objective=objective,
        )  # fmt: skip


def _warn_of_constants(recordings: Recordings) -> None:
    """Say in one line which channels are constant, which the network sees as 0."""
    everyone = range(len(recordings))
    still = np.stack([np.ptp(recordings[index], axis=0) == 0 for index in everyone]).sum(axis=0)
    found = [f"channel {place} in {count}" for place, count in enumerate(still, 1) if count]
    if found:
        of = f"of {len(recordings)} recordings"
        say(f"warning: nothing can be learnt from a constant: {', '.join(found)} {of}")


def _details(
    objective: Classification, evaluation: Evaluation, test: SignalDataset
) -> dict[str, Any]:
    """Return names and predictions of a test, the interval of its figure, and the accuracy."""
    recordings = test.recordings
    predictions, labels = evaluation.predictions.numpy(), evaluation.labels.numpy()
    found = details(evaluation, recordings.subjects[test.chosen])
    if len(np.unique(recordings.subjects)) == len(recordings):
        del found["test_subjects"]  # each recording counts as a subject of its own
    return {
        "test_names": recordings.names[test.chosen].tolist(),
        **found,
        "test_accuracy": float((predictions == labels).mean()),
        f"test_{objective.figure}_interval": interval(objective, predictions, labels),
    }
