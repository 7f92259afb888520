"""Smartwatch recordings of seven shoulder exercises by ten people (Burns et al., 2018).

They ship with the pip package seglearn (BSD 3-clause): 140 recordings of about 20 repetitions each,
from 950 to 2,600 steps at 50 Hz, with the acceleration (in g, including gravity) and the angular
velocity (in radians per second) along the three axes of the watch.
"""

import dataclasses
import importlib.metadata
import importlib.util
import os
import pickle
from pathlib import Path

import numpy as np

from experiments.datasets import DataError
from experiments.datasets.recordings import Description, Recordings, join

RECORDINGS = 140
ABOUT = Description(
    data_set="seglearn watch",
    kind="signal",
    # In the order of the labels; seglearn's short names are PEN, ABD, FEL, IR, ER, TRAP and ROW.
    class_names=(
        "pendulum", "abduction", "forward elevation", "internal rotation", "external rotation",
        "trapezius extension", "upright row",
    ),
    frame_rate=50.0,
    source="pip package seglearn",
    joint_names=(
        "acceleration_x", "acceleration_y", "acceleration_z",
        "rotation_x", "rotation_y", "rotation_z",
    ),
)  # fmt: skip
#: The file in the package.
_FILE = Path("data") / "watch_dataset.npy"


def load_watch() -> Recordings:
    """Load the recordings, with the column ``side`` (0: the watch is on the left arm, 1: right)."""
    file = _package_folder() / _FILE
    try:
        # The file is a pickle, trusted as the package's code is. The package is not imported, as
        # its last release may be too old for the scikit-learn that is installed.
        data = np.load(file, allow_pickle=True).item()
        frames = [np.asarray(one, np.float32) for one in data["X"]]
        labels, subjects, sides = (np.asarray(data[key]) for key in ("y", "subject", "side"))
        if len(frames) != RECORDINGS or not all(np.isfinite(one).all() for one in frames):
            raise ValueError(f"must hold {RECORDINGS} finite recordings; it holds {len(frames)}")
    except (OSError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise DataError(f"seglearn's {_FILE} is damaged: {error}; reinstall seglearn") from error
    version = importlib.metadata.version("seglearn")
    about = dataclasses.replace(ABOUT, source=f"{ABOUT.source} {version}")
    names = [f"watch{index:03d}" for index in range(RECORDINGS)]
    return join(about, frames, labels, subjects, names, {"side": sides})


def prepare(root: str | os.PathLike[str] | None = None) -> str:
    """Check that the recordings are there; ``root`` is unused, as they come with the package."""
    recordings = load_watch()
    by = f"{len(recordings)} recordings by {len(np.unique(recordings.subjects))} subjects"
    return f"{recordings.about.data_set}: {by}, {recordings.about.source}"


def _package_folder() -> Path:
    found = importlib.util.find_spec("seglearn")
    if found is None or not found.submodule_search_locations:
        raise DataError("the smartwatch recordings come with seglearn: pip install seglearn")
    return Path(found.submodule_search_locations[0])
