"""Name the class of recordings: ``python -m experiments.predict build/train FILE ...``.

The folder is that of a run of ``python -m experiments.train signals block``. For each file, CSV or
NPY as :mod:`experiments.datasets.own_folder` describes them, it prints the class and its
probability.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from torch import nn

from experiments.command_line import refuse, report_errors
from experiments.datasets import DataError
from experiments.datasets.own_folder import as_frames, read_recording
from experiments.signals.dataset import normalised
from experiments.tasks.signals import SignalsConfig
from experiments.train import checkpoints
from experiments.train.config import ConfigError
from experiments.train.networks import Sizes
from experiments.train.objectives import Classification

PROGRAM = "python -m experiments.predict"


@dataclass
class Command:
    """The options of the command line."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """the folder of a run"""
    files: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="FILE [FILE ...]", help_behavior_hint=""),
    ]
    """recordings, NAME.csv or NAME.npy"""


@dataclass(frozen=True)
class Trained:
    """A trained network: call it with a recording.

    Attributes:
        class_names: the classes, in the order of its outputs.
        channels: those of the recordings that it was trained on.
    """

    network: nn.Module
    class_names: Sequence[str]
    channels: int

    @torch.no_grad()
    def __call__(self, recording: np.ndarray) -> dict[str, float]:
        """Return the probability of each class.

        Args:
            recording: (steps, channels), or (steps,) for one channel, as it was recorded: each is
                scaled by itself, as in training.

        Raises:
            DataError: it has another number of channels, or a number that is not finite.
        """
        frames = as_frames(np.asarray(recording))
        if frames.shape[1] != self.channels:
            raise DataError(
                f"{frames.shape[1]} channels; the network was trained on {self.channels}"
            )
        output = self.network(torch.from_numpy(normalised(frames)).unsqueeze(0))
        scores = Classification().average(output, 1)[0]
        return dict(zip(self.class_names, scores.exp().tolist(), strict=True))


def load(run: Path | str) -> Trained:
    """Return the network of a run, with the weights that were tested; ConfigError without one."""
    file = Path(run) / "best.pt"
    if not file.is_file():
        if several := sorted(Path(run).rglob("best.pt")):
            folders = ", ".join(str(one.parent) for one in several)
            raise ConfigError(f"{run} holds several runs: choose one of {folders}")
        raise ConfigError(
            f"{run} holds no trained network: python -m experiments.train signals block "
            f"--folder DIR --out {run} trains one"
        )
    state = checkpoints.read(file)
    try:
        config = SignalsConfig.read(state["config"])
        class_names, channels = state["class_names"], state["input_size"]
    except (KeyError, ConfigError) as error:
        raise ConfigError(
            f"{file} is of another task than signals, or of an older version ({error}): train again"
        ) from error
    network = config.model.build(Sizes(channels, len(class_names)))
    network.load_state_dict(state["model"])
    return Trained(network.eval(), class_names, channels)


def main(argv: Sequence[str] | None = None) -> int:
    """Do as the command line says; return the exit status, 1 if some file has no prediction."""
    command = tyro.cli(Command, args=argv, prog=PROGRAM, description=__doc__)
    if not command.files:
        refuse(PROGRAM, "name the files whose class to predict")
    failed = []

    def run() -> None:
        trained = load(command.run)
        for file in command.files:
            try:
                probabilities = trained(read_recording(file))
            except DataError as error:
                failed.append(file)
                print(f"{file}: {error}", file=sys.stderr)
                continue
            best = max(probabilities, key=lambda name: probabilities[name])
            print(f"{file}: {best} {probabilities[best]:.1%}", flush=True)

    return report_errors(PROGRAM, run) or int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
