"""The training of notebook 05, by profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.datasets import data_root
from experiments.tasks.action import ActionConfig

#: smoke shows that everything works: short windows, a small network, next to no training.
SETTINGS: dict[str, dict[str, Any]] = {
    "smoke": {"epochs": 2, "hidden_size": 8, "num_layers": 1},
    "quick": {"val_subjects": 1},
    "paper": {"seeds": 3},
}
#: What a profile changes for a single data set.
SPECIAL: dict[tuple[str, str], dict[str, Any]] = {
    ("smoke", "watch"): {"frames": 50, "hop": 400},
    ("quick", "watch"): {"epochs": 12},
}
#: Trees of the random forest.
TREES = {"smoke": 20, "quick": 100, "paper": 300}


def make_configs(profile: str, folder: Path) -> dict[str, ActionConfig]:
    """Return the configuration for each data set that is there; runs go below ``folder``."""
    skeletons = [
        name for name in ("utkinect", "msr") if (data_root() / name / "meta.json").is_file()
    ]
    return {
        name: ActionConfig.of(
            data_set=name,
            protocol="5fold" if name == "watch" else "loso",
            out=folder / name,
            resume=profile == "paper",  # it may take an hour: runs that have ended stay
            **SETTINGS[profile] | SPECIAL.get((profile, name), {}),
        )
        for name in ("watch", *skeletons)
    }
