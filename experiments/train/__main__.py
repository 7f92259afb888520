"""Train a sequence classifier: ``python -m experiments.train mnist``.

``torchrun --nproc-per-node 2 -m experiments.train mnist`` trains with several workers.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from experiments.command_line import parse_task, report_errors
from experiments.tasks import TASKS
from experiments.train.runs import train_all

PROGRAM = "python -m experiments.train"


def main(argv: Sequence[str] | None = None) -> int:
    """Train as the command line says; return the exit status."""
    config = parse_task(TASKS, argv, PROGRAM, str(__doc__))
    return report_errors(PROGRAM, lambda: train_all(config))


if __name__ == "__main__":
    sys.exit(main())
