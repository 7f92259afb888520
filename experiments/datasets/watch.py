"""Smartwatch recordings of seven shoulder exercises by ten people, by Burns et al. (2018).

They ship with the pip package seglearn (BSD 3-clause): 140 recordings of about 20 repetitions each,
from 950 to 2,600 steps at 50 Hz, with the acceleration (in units of g, gravity included) and the
rate of rotation (in radians per second) along the three axes of the watch.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pickle
from pathlib import Path

import numpy as np

from experiments.datasets import DataError
from experiments.datasets.recordings import Description, Recordings, join

RECORDINGS = 140
CHANNELS = (
    "acceleration_x", "acceleration_y", "acceleration_z", "rotation_x", "rotation_y", "rotation_z",
)  # fmt: skip
#: In the order of the labels; seglearn's short names are PEN, ABD, FEL, IR, ER, TRAP and ROW.
EXERCISES = (
    "pendulum", "abduction", "forward elevation", "internal rotation", "external rotation",
    "trapezius extension", "upright row",
)  # fmt: skip
#: Where the recordings lie in the package.
_FILE = Path("data") / "watch_dataset.npy"


def load_watch() -> Recordings:
    """Load the recordings, with the column ``side`` (0: the watch is on the left arm, 1: right).

    Raises:
        DataError: seglearn is not installed, or its file is not the one expected.
    """
    file = _package_folder() / _FILE
    try:
        # The file is a pickle, so it is trusted as the code of the package is. The package is not
        # imported: its last release may be too old for the scikit-learn that is installed.
        data = np.load(file, allow_pickle=True).item()
        frames = [np.asarray(one, np.float32) for one in data["X"]]
        labels, subjects, sides = (np.asarray(data[key]) for key in ("y", "subject", "side"))
    except (OSError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"seglearn's {_FILE} cannot be read: {error}; install it again") from error
    if len(frames) != RECORDINGS or not all(np.isfinite(one).all() for one in frames):
        raise DataError(
            f"seglearn's {_FILE} must hold {RECORDINGS} recordings of finite numbers; "
            f"it holds {len(frames)}: install it again"
        )
    return join(
        Description(
            data_set="seglearn watch",
            kind="signal",
            class_names=EXERCISES,
            frame_rate=50.0,
            source=f"pip package seglearn {importlib.metadata.version('seglearn')}",
            joint_names=CHANNELS,
        ),
        frames,
        labels.tolist(),
        subjects.tolist(),
        [f"watch{index:03d}" for index in range(RECORDINGS)],
        {"side": sides.astype(np.int64).tolist()},
    )


def prepare(root: str | os.PathLike[str] | None = None) -> str:
    """Check that the recordings are there; ``root`` is not used, as they come with the package."""
    recordings = load_watch()
    return (
        f"{recordings.about.data_set}: {len(recordings)} recordings by "
        f"{len(np.unique(recordings.subjects))} subjects, {recordings.about.source}"
    )


def _package_folder() -> Path:
    found = importlib.util.find_spec("seglearn")
    if found is None or not found.submodule_search_locations:
        raise DataError("the smartwatch recordings come with seglearn: pip install seglearn")
    return Path(found.submodule_search_locations[0])
