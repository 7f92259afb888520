"""The training loop, on Lightning Fabric.

In the folder ``out`` a run leaves

    log.csv       a row per epoch
    last.pt       the whole state of the run, from which it is resumed to the same bits
    best.pt       the weights to be tested: by default those that did best on the validation data
    results.json  the final figures, once the run has finished; they alone use the test data
    test.npz      log-probabilities (N, classes), or predictions (N,), and labels (N,) of the test
"""

from __future__ import annotations

import json
import math
import textwrap
import threading
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from experiments.files import replacing, write_text
from experiments.models import forgotten_bits
from experiments.process import stop_signals, threads
from experiments.train import checkpoints
from experiments.train.config import TrainConfig
from experiments.train.evaluate import calibrate, evaluate, mistakes
from experiments.train.model import count_parameters
from experiments.train.objectives import Evaluation, Objective
from experiments.train.run import Run
from irevrnn.kernels.allocator import use_caching_allocator

#: Steps between two readings of the running loss: on a GPU each waits for the device.
READ_LOSS_EVERY = 10


def train(
    config: TrainConfig, *, progress: bool = True, replaced: Sequence[Path] = ()
) -> dict[str, Any]:
    """Train, and test once at the end.

    Args:
        config: a single run, such as ``MnistConfig(epochs=3, out=Path("build/run"))``.
        progress: whether to show a progress bar and a line per epoch.
        replaced: folders of earlier runs that this one replaces, unless it is resumed.

    Returns:
        The content of ``results.json``: configuration, provenance, history, ``val_accuracy``,
        ``test_accuracy``, ``confusion_matrix`` (rows: true class) and some ``mistakes``. If
        ``max_minutes`` ran out, ``finished`` is False and there are no test figures.

    Raises:
        FloatingPointError: the loss became infinite or NaN; last.pt is from before.
        OverflowError: with a fixed-point strategy, a value left its range.
        ReversalError: with ``reversible``, a state was not reconstructed exactly.
        KeyboardInterrupt: Ctrl-C or a termination signal; last.pt is up to date.
        ConfigError: the run cannot be done, or not be resumed, as configured.
        DataError: the data cannot be loaded.
    """
    use_caching_allocator()
    say = tqdm.write if progress else lambda message: None
    with threads(config.threads):
        run = Run(config)
        with checkpoints.folder_of_its_own(run):
            _open_folder(run, say, replaced)
            say(_headline(run))
            with stop_signals() as stop, _progress_bar(run, progress) as bar:
                finished = _fit(run, stop, bar, say)
            return _end(run, finished, stop, say)


def _end(
    run: Run, finished: bool, stop: threading.Event, say: Callable[[str], None]
) -> dict[str, Any]:
    """Test a run that has finished, and say how one that was stopped continues."""
    config = run.config
    way_on = f"the run in {config.out} continues with --resume (resume=True)"
    if stop.is_set():
        raise KeyboardInterrupt(f"stopped; {way_on}")
    if not finished:
        say(f"max_minutes = {config.max_minutes} are over; {way_on}")
        return _describe(run) | {"finished": False}
    return _finish(run, say)


def _open_folder(run: Run, say: Callable[[str], None], replaced: Sequence[Path]) -> None:
    """Resume the run in ``out`` if that is wanted, or delete it and those that it replaces."""
    out = run.config.out
    exists = (out / "last.pt").exists()
    if exists and run.config.resume:
        checkpoints.load(run)
        return
    if exists:
        say(f"replacing the run in {out} (to continue it: --resume)")
    for folder in [out] if run.config.resume else [out, *replaced]:
        for name in checkpoints.FILES:
            (folder / name).unlink(missing_ok=True)


def _fit(run: Run, stop: threading.Event, bar: tqdm, say: Callable[[str], None]) -> bool:
    """Train to the last epoch; return False if stopped, or out of time, before that."""
    config, progress, task = run.config, run.progress, run.task
    minutes = math.inf if config.max_minutes is None else config.max_minutes
    deadline = run.started + 60 * minutes
    while progress.epoch < config.epochs:
        bar.set_description(f"epoch {progress.epoch + 1}/{config.epochs}")
        for x, y in task.train_batches(progress.epoch, progress.batch):
            run.step(x, y)
            _show_step(run, bar)
            halt = stop.is_set() or time.monotonic() > deadline
            if halt or progress.batch % (config.checkpoint_every or math.inf) == 0:
                checkpoints.save(run)
            if halt:
                return False
        finish_epoch(run)
        say(_describe_epoch(progress.history[-1], config.epochs, task.objective))
        if stop.is_set():
            return False
    return True


def finish_epoch(run: Run) -> None:
    """Validate, log, and keep the weights if they are the best so far."""
    config, progress, task = run.config, run.progress, run.task
    figure, validation = task.objective.figure, None
    train_loss, train_figure = run.means()
    if config.calibrate:
        batches = islice(task.train_batches(progress.epoch, 0), config.calibrate)
        calibrate(run.evaluated, batches)
    if task.val_batches is not None:
        validation = evaluate(run.evaluated, task.val_batches(), task.objective)
        run.check_finite("validation loss", validation.loss)
    row = {
        "epoch": progress.epoch + 1,
        "step": (progress.epoch + 1) * task.steps_per_epoch,
        "train_loss": train_loss,
        f"train_{task.objective.training_figure}": train_figure,
        "val_loss": validation and validation.loss,
        f"val_{figure}": validation and validation.figure,
        "lr": run.schedule.get_last_lr()[0],
        "seconds": run.seconds(),
    }
    progress.history.append(row)
    if config.keep == "last" or progress.best is None or _is_better(run, row, progress.best):
        progress.best = row
        checkpoints.save_best(run, row)
    progress.epoch, progress.batch = progress.epoch + 1, 0
    progress.totals = run.zero_totals()
    checkpoints.save(run)
    checkpoints.write_log(run)


def _is_better(run: Run, row: dict[str, Any], best: dict[str, Any]) -> bool:
    sign, figure = run.task.objective.sign, f"val_{run.task.objective.figure}"
    new, old = ((sign * one[figure], -one["val_loss"]) for one in (row, best))
    return new > old


def _finish(run: Run, say: Callable[[str], None]) -> dict[str, Any]:
    """Test the weights that were kept and write the results."""
    config, task = run.config, run.task
    checkpoints.load_best(run)
    checkpoints.write_log(run)  # it may have been killed before the last
    results = _describe(run) | {"finished": True}
    if config.test:
        test = evaluate(run.evaluated, task.test_batches(), task.objective)
        results |= _describe_test(run, test)
        results["data"]["test_size"] = len(test.labels)
    file = config.out / "results.json"
    write_text(file, json.dumps(results, indent=1) + "\n")
    name = f"{'test' if config.test else 'val'}_{task.objective.figure}"
    shown = format_figure(name, results[name])
    say(f"{task.data_set}: {name} {shown} (weights of epoch {results['best_epoch']}); {file}")
    return results


def _describe(run: Run) -> dict[str, Any]:
    """Return everything that is known of a run before the test data is read."""
    best, val_figure = run.progress.best or {}, f"val_{run.task.objective.figure}"
    return {
        "data_set": run.task.data_set,
        "data": dict(run.task.facts),
        "input_size": run.task.input_size,
        "class_names": list(run.task.class_names),
        "config": run.config.identity(),
        "settings_tried": run.config.settings_tried,
        "seed": run.config.seed,
        "num_parameters": count_parameters(run.network),
        "forgotten_bits": _forgotten_bits(run),
        "device": str(run.fabric.device),
        **run.provenance,
        "git_commits": run.commits,  # of all sessions, where git_commit is that of the last
        "wall_seconds": run.seconds(),
        "processor_seconds": run.processor_seconds(),  # without the pauses of a shared machine
        "history": run.progress.history,
        "best_epoch": best.get("epoch"),
        val_figure: best.get(val_figure),
    }


def _forgotten_bits(run: Run) -> float | None:
    network = run.network if run.average is None else run.average.module
    bits = forgotten_bits(network)
    return None if bits is None else bits.item()


def _describe_test(run: Run, test: Evaluation) -> dict[str, Any]:
    """Write test.npz and return the figures of the test."""
    task = run.task
    with replacing(run.config.out / "test.npz") as temporary, temporary.open("wb") as file:
        arrays = {task.objective.outputs: test.outputs.numpy(), "labels": test.labels.numpy()}
        np.savez(file, **arrays)  # type: ignore[arg-type]
    return {
        f"test_{task.objective.figure}": test.figure,
        "test_loss": test.loss,
        "forgotten_bits": _forgotten_bits(run),  # which may depend on the data
        **(mistakes(test, task.num_classes) if task.objective.sign > 0 else {}),
        **(task.test_details(test) if task.test_details else {}),
    }


# --- messages -----------------------------------------------------------------------------------


def _headline(run: Run) -> str:
    given = {name: value for name, value in run.task.facts.items() if value is not None}
    facts = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in given.items())
    network = f"{run.config.model.name} with {count_parameters(run.network):,} parameters"
    where = f"seed {run.config.seed}, on {run.fabric.device}"
    lines = textwrap.fill(f"{run.task.data_set} ({facts});", 96, subsequent_indent="  ")
    return f"{lines}\n  {network}, {where}"


def _progress_bar(run: Run, shown: bool) -> tqdm:
    return tqdm(
        total=run.total_steps,
        initial=run.progress.epoch * run.task.steps_per_epoch + run.progress.batch,
        disable=not shown,
        mininterval=1.0,  # a notebook or a log keeps every line
        unit="step",
        leave=False,
    )


def _show_step(run: Run, bar: tqdm) -> None:
    bar.update()
    if run.progress.batch % READ_LOSS_EVERY == 0:
        loss, figure = run.means()
        name = run.task.objective.training_figure
        shown = {"loss": f"{loss:.3f}", name: format_figure(name, figure)}
        bar.set_postfix(shown, refresh=False)


def _describe_epoch(row: dict[str, Any], epochs: int, objective: Objective) -> str:
    validation = ""
    if row["val_loss"] is not None:
        shown = _shown(objective.figure, row[f"val_{objective.figure}"])
        validation = f"validation loss {row['val_loss']:.3f}, {shown}; "
    train = _shown(objective.training_figure, row[f"train_{objective.training_figure}"])
    return (
        f"epoch {row['epoch']}/{epochs}: loss {row['train_loss']:.3f}, {train}; {validation}"
        f"{row['seconds']:.0f} s so far"
    )


def _shown(name: str, value: float) -> str:
    return f"{name.replace('_', ' ')} {format_figure(name, value)}"


def format_figure(name: str, value: float) -> str:
    """Format an accuracy as a percentage, an error as a number."""
    return f"{value:.2%}" if name.endswith("accuracy") else f"{value:.4g}"
