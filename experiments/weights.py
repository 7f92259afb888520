"""The weights of the paper's trained networks, ``paper/weights/NAME/RUN.safetensors``."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from experiments import folders
from experiments.files import replacing
from experiments.train import checkpoints
from experiments.train.config import ConfigError, TrainConfig


def folder() -> Path:
    """Return the folder of the weights of all experiments."""
    return folders.folder("paper") / "weights"


def path(name: str, run: str) -> Path:
    """Return the file for a run of an experiment; ``run`` is "" where there is only one."""
    return folder() / name / f"{run or 'run'}.safetensors"


def save(name: str, config: TrainConfig) -> None:
    """Write the weights that each run of an experiment has tested, from the runs' folders."""
    for run, _ in config.runs():
        state = checkpoints.read(config.out / run / "best.pt")
        path(name, run).parent.mkdir(parents=True, exist_ok=True)
        with replacing(path(name, run)) as temporary:
            save_file({key: x.contiguous() for key, x in state["model"].items()}, temporary)
            temporary.chmod(0o644)  # others are to read it in a clone


def load(name: str, run: str) -> dict[str, Tensor]:
    """Return the weights of a run; ConfigError if they are missing or damaged."""
    file = path(name, run)
    if not file.is_file():
        raise ConfigError(f"{file} is missing: python -m experiments {name} writes it")
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ConfigError(f"{file} is damaged ({error}): get it anew from the repository") from None
