"""What a run shows: a progress bar, a line per epoch, and log.csv."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from tqdm import tqdm

from experiments.files import write_text
from experiments.train.model import count_parameters
from experiments.train.run import Run


class Report:
    """The messages and the progress bar of a run; the first worker alone shows them.

    Args:
        run: the run, with its progress restored.
        shown: False to show nothing.
    """

    def __init__(self, run: Run, shown: bool) -> None:
        self.run = run
        self.shown = shown and run.is_first

    def say(self, message: str) -> None:
        """Print a line beside the progress bar."""
        if self.shown:
            tqdm.write(message)

    def start(self) -> None:
        """Say what is trained on what."""
        run, task = self.run, self.run.task
        facts = ", ".join(f"{name} {value}" for name, value in task.facts.items())
        self.say(
            f"{task.data_set} ({facts}); {run.config.model} with "
            f"{count_parameters(run.network):,} parameters, seed {run.config.seed}, "
            f"on {run.fabric.device}"
        )

    def bar(self) -> tqdm:
        """Return the progress bar over all steps."""
        progress = self.run.progress
        return tqdm(
            total=self.run.total_steps,
            initial=progress.epoch * self.run.task.steps_per_epoch + progress.batch,
            disable=not self.shown,
            mininterval=1.0,  # a notebook or a log keeps every line
            unit="step",
            leave=False,
        )

    def epoch(self) -> None:
        """Describe the last epoch in a line."""
        row, figure = self.run.progress.history[-1], self.run.task.objective.figure
        validation = ""
        if row["val_loss"] is not None:
            shown = format_figure(figure, row[f"val_{figure}"])
            validation = f"validation {row['val_loss']:.3f}, {shown}; "
        self.say(
            f"epoch {row['epoch']}/{self.run.config.epochs}: loss {row['train_loss']:.3f}, "
            f"{figure.replace('_', ' ')} {format_figure(figure, row[f'train_{figure}'])}; "
            f"{validation}{row['seconds']:.0f} s"
        )


def format_figure(name: str, value: float) -> str:
    """Format an accuracy as a percentage, an error as a number."""
    return f"{value:.2%}" if name.endswith("accuracy") else f"{value:.4f}"


def write_log(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the history of a run as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
