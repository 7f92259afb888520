"""Action recognition: ``python -m experiments.train action irevrnn``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from lightning_fabric.utilities import move_data_to_device

from experiments.action.augment import Augmentation
from experiments.action.dataset import SequenceDataset, in_order, shuffled
from experiments.action.folds import PROTOCOLS, make_folds
from experiments.action.sampling import SAMPLINGS, Sampling
from experiments.action.views import CENTRES, View
from experiments.datasets import data_root
from experiments.datasets.recordings import Recordings, open_recordings
from experiments.datasets.watch import load_watch
from experiments.sequences import Fold, Key, Sequences
from experiments.tasks.folds import chosen_fold, details, runs_of_folds
from experiments.train.config import ConfigError, DataConfig, TrainConfig, option
from experiments.train.objectives import Evaluation
from experiments.train.task import Task

_SMALL: dict[str, Any] = {
    "motion": True, "hidden_size": 64, "num_layers": 2, "recurrent_lr_scale": 1.0,
    "coupling_lr_scale": 1.0, "label_smoothing": 0.1, "keep": "last", "val_subjects": 0,
}  # fmt: skip
_SHORT_ACTIONS: dict[str, Any] = {
    **_SMALL, "centre": "frames", "bones": True,
    "rotation": 25.0, "scale": 0.2, "shear": 0.15, "mirror": 0.5, "time": 0.3, "dropout": 0.2,
    "epochs": 120, "batch_size": 32, "lr": 6e-3, "weight_decay": 0.1, "average": 0.98,
}  # fmt: skip
#: Defaults of each data set. Those of the watch and of UTKinect were chosen on validation subjects;
#: those of NTU RGB+D follow IndRNN's protocol.
PRESETS: dict[str, dict[str, Any]] = {
    "watch": {
        **_SMALL, "sampling": "window", "frames": 200, "hop": 100,
        "rotation": 15.0, "scale": 0.1, "time": 0.2, "num_couplings": 1, "dropout": 0.1,
        "epochs": 40, "batch_size": 64, "lr": 8e-3, "average": 0.97,
    },
    "utkinect": _SHORT_ACTIONS,
    "msr": _SHORT_ACTIONS,
    "ntu60": {"sampling": "segments", "frames": 20, "clips": 5},
    "ntu120": {"sampling": "segments", "frames": 20, "clips": 5},
}  # fmt: skip


class ActionConfig(DataConfig):
    """Train on recordings of movements: skeletons or the signals of a smartwatch."""

    # the data
    data_set: str = option(
        "watch", "the data set; each has defaults of its own", choices=tuple(PROTOCOLS)
    )
    protocol: str | None = option(
        None, "loso, 5fold, xsub, xview or xset; if not given, the first that the data set has"
    )
    fold: int | None = option(None, "this fold alone, from 0 (all of them, if not given)", least=0)
    val_subjects: int = option(1, "training subjects set aside for validation", least=0)

    # what is shown of a recording
    sampling: str = option("whole", "frames: all, of segments, or of windows", choices=SAMPLINGS)
    frames: int = option(20, "n: segments, or steps of a window", least=1)
    clips: int = option(
        1, "segments: samples of a recording whose probabilities are averaged at test", least=1
    )
    hop: int = option(100, "window: steps from one to the next", least=1)
    centre: str = option(
        "start", "move the root joint of the first frame, or of each, to the origin",
        choices=CENTRES)  # fmt: skip
    bones: bool = option(False, "add the vectors of the bones")
    motion: bool = option(False, "add the differences between frames")

    # augmentation
    rotation: float = option(0.0, "degrees, at most, about each axis", least=0)
    scale: float = option(0.0, "larger or smaller by up to that share", least=0)
    shear: float = option(0.0, "what one axis adds to another, at most", least=0)
    mirror: float = option(0.0, "probability of the mirror image", least=0, most=1)
    time: float = option(0.0, "faster, slower and cut at the ends by up to that share", least=0,
                         below=1)  # fmt: skip

    # the run
    workers: int = option(0, "processes that make batches", least=0, operational=True)

    @classmethod
    def presets(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the defaults of the data set."""
        return PRESETS.get(given.get("data_set", "watch"), {})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.protocol is None:
            object.__setattr__(self, "protocol", PROTOCOLS[self.data_set][0])

    def load(self) -> Recordings:
        """Load the recordings of the data set, or raise a DataError."""
        if self.data_set == "watch":
            return load_watch()
        folder = data_root(self.data) / self.data_set  # ntu60 and ntu120 have one converter, ntu
        return open_recordings(folder, f"{self.data_set.rstrip('0126')} RAW {folder}")

    def folds(self, recordings: Recordings) -> list[Fold]:
        """Return all folds of the protocol."""
        return make_folds(recordings, self.data_set, str(self.protocol), self.val_subjects)

    def runs(self) -> list[tuple[str, TrainConfig]]:
        """Return a run for each fold and seed."""
        if self.fold is not None:
            return super().runs()
        return runs_of_folds(self, len(self.folds(self.load())))

    def task(self, device: torch.device) -> Task:
        """Return one fold of the protocol, with batches on ``device``."""
        recordings = self.load()
        parts = make_parts(self, recordings)
        facts = {
            "val_subjects": np.unique(recordings.subjects[parts.fold.val]).tolist(),
            "recordings": len(recordings),
            "digest": recordings.digest,
            "rejected": len(recordings.rejected),
        }
        return self.task_of(
            parts, (parts.train, parts.val, parts.test), device, facts,
            data_set=recordings.about.data_set,
            test_details=lambda test: _details_of_recordings(test, parts.test),
        )  # fmt: skip

    def task_of(
        self, parts: Parts, sequences: tuple[Sequences, ...], device: torch.device,
        facts: dict[str, Any], **more: Any,
    ) -> Task:  # fmt: skip
        """Return the task of the sequences to train on, to validate and to test."""
        train, val, test = sequences
        steps = self.full_batches(len(train))
        move = partial(move_data_to_device, device=device)
        how = self.batch_size, self.workers
        about = parts.train.recordings.about
        return Task(
            input_size=train[Key(0)][0].shape[-1],
            num_classes=len(about.class_names),
            class_names=tuple(about.class_names),
            steps_per_epoch=steps,
            train_batches=lambda epoch, skip: map(move, shuffled(train, *how, epoch, skip)),
            val_batches=(lambda: map(move, in_order(val, *how))) if len(val) else None,
            test_batches=lambda: map(move, in_order(test, *how)),
            facts={
                "source": about.source, "protocol": self.protocol, "fold": parts.fold.name,
                "folds": len(self.folds(parts.train.recordings)), "train_size": len(train),
                "val_size": len(val), **facts,
            },
            **more,
        )  # fmt: skip


@dataclass(frozen=True)
class Parts:
    """The sequences of a fold, all scaled by its training data."""

    fold: Fold
    train: SequenceDataset
    val: SequenceDataset
    test: SequenceDataset


def make_parts(config: ActionConfig, recordings: Recordings) -> Parts:
    """Make the sequences of one fold."""
    fold = chosen_fold(config.folds(recordings), config.fold)
    shortest = int(recordings.lengths.min())
    if config.sampling == "window" and config.frames > shortest:
        raise ConfigError(
            f"frames must be at most the {shortest} steps of the shortest recording; "
            f"got {config.frames}"
        )
    sampling = Sampling(config.sampling, config.frames, config.clips, config.hop)
    if config.bones and not recordings.about.bones:
        raise ConfigError(f"bones must be False for {recordings.about.data_set}, which has none")
    view = View(recordings.about, config.centre, config.bones, config.motion)
    augmentation = Augmentation(config.rotation, config.scale, config.shear, config.mirror)
    chosen = fold.train[: config.train_subset]
    train = SequenceDataset(
        recordings, chosen, sampling, view, augmentation, config.time, config.seed
    )
    train.measure()
    rest = [part[: config.eval_subset] for part in (fold.val, fold.test)]
    return Parts(fold, train, *(dataclasses.replace(train, chosen=part) for part in rest))


def _details_of_recordings(evaluation: Evaluation, test: SequenceDataset) -> dict[str, Any]:
    """Return the details of sequences, and the accuracy on the recordings that they are part of.

    A recording of several sequences is classified by the mean of their probabilities.
    """
    recordings = test.recordings
    tested, of = np.unique(test.sources, return_inverse=True)
    sums = torch.zeros(len(tested), evaluation.outputs.shape[1], dtype=torch.float64)
    sums.index_add_(0, torch.from_numpy(of), evaluation.outputs.exp().cpu().double())
    right = sums.argmax(1).numpy() == recordings.labels[tested]
    return {
        "test_names": recordings.names[test.sources].tolist(),
        **details(evaluation, recordings.subjects[test.sources]),
        "test_recordings": len(tested),
        "test_accuracy_of_recordings": float(right.mean()),
    }
