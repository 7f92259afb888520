"""ECG recordings as levels, whose next one is to be predicted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from experiments.datasets.recordings import Recordings

#: Levels that a sample is quantised to.
LEVELS = 256
#: Shares of a recording's samples below its lowest and highest level.
ENDS = (0.0005, 0.9995)


@dataclass(frozen=True)
class Levels:
    """A recording as integers from 0 to LEVELS - 1.

    Attributes:
        name: of the recording.
        subject: the person, of whom there may be several recordings.
        values: (T,) int64.
    """

    name: str
    subject: int
    values: Tensor

    def sequence(self, steps: int | None = None) -> Tensor:
        """Return (1, T - 1, 2): a sample between -1 and 1, and what the network predicts.

        That is the difference to the next level, modulo LEVELS. It costs as many bits as the level
        itself, and is easier to learn: most differences are small.
        """
        values = self.values[:steps]
        now = values[:-1].float() * (2 / (LEVELS - 1)) - 1
        return torch.stack((now, values.diff().remainder(LEVELS).float()), -1)[None]


def quantise(samples: np.ndarray) -> Tensor:
    """Quantise (T,) samples uniformly between two quantiles; what lies beyond is cut off.

    The quantiles are those of the whole recording, also of one that is tested.
    """
    low, high = np.quantile(samples, ENDS)
    scaled = (samples - low) / max(high - low, 1e-9) * (LEVELS - 1)
    return torch.from_numpy(np.rint(scaled.clip(0, LEVELS - 1)).astype(np.int64))


def levels_of(recordings: Recordings) -> list[Levels]:
    """Return the first lead of every recording, quantised."""
    about = zip(recordings.names, recordings.subjects, strict=True)
    return [
        Levels(str(name), int(subject), quantise(recordings[index][:, 0]))
        for index, (name, subject) in enumerate(about)
    ]
