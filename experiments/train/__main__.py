"""Train a sequence classifier: ``python -m experiments.train mnist block``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from experiments.command_line import parse_task, report_errors
from experiments.tasks import TASKS
from experiments.train.config import TrainConfig
from experiments.train.runs import train_all

PROGRAM = "python -m experiments.train"


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line says; return the exit status."""
    config = parse_task(TASKS, argv, PROGRAM, str(__doc__))
    print(settings(config))
    return report_errors(PROGRAM, lambda: train_all(config))


def settings(config: TrainConfig) -> str:
    """Return in one line what differs from the defaults that --help shows."""
    plain = type(config).of(model=config.model.name).identity()
    changed = {name: value for name, value in config.identity().items() if value != plain[name]}
    listed = ", ".join(f"{name} {value}" for name, value in changed.items())
    return f"settings other than the defaults of --help: {listed or 'none'}"


if __name__ == "__main__":
    sys.exit(main())
