"""The files of a run: written so that a killed run can be resumed, and read with clear errors."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.files import replacing
from experiments.train.config import ConfigError, TrainConfig
from experiments.train.run import Progress, Run

#: Everything that a run leaves in its folder.
FILES = ("last.pt", "best.pt", "log.csv", "results.json", "test.npz")
#: Errors in reading the content of a damaged file.
_OF_DAMAGE = (AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def save(run: Run) -> None:
    """Write last.pt, the whole state of the run.

    It is written after best.pt: a run that is killed between the two repeats some steps and writes
    the same best.pt again.
    """
    if run.progress.batch:
        run.means()  # weights that have become NaN must not replace good ones
    run.check_weights()
    state = _stateful(run) | {
        "place": _place(run),
        "git_commits": run.commits,
        "data": _data(run),
        "progress": asdict(run.progress)
        | {"seconds": run.seconds(), "processor_seconds": run.processor_seconds()},
        "rng": [_rng_state(run)],
    }
    _write(run, "last.pt", state)


def save_best(run: Run, row: dict[str, Any]) -> None:
    """Write best.pt: the weights to be tested, their row of the history, and sizes and names."""
    about = {"input_size": run.task.input_size, "class_names": list(run.task.class_names)}
    _write(run, "best.pt", {"model": run.evaluated, "row": row, **about})


def write_log(run: Run) -> None:
    """Write log.csv, the history of the run."""
    history, file = run.progress.history, run.config.out / "log.csv"
    with replacing(file) as temporary, temporary.open("w", encoding="utf-8", newline="") as text:
        writer = csv.DictWriter(text, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(history)


def load(run: Run) -> None:
    """Restore the state in last.pt; ConfigError if it is damaged, or of other options."""
    state = read(run.config.out / "last.pt")
    try:
        run.config.check_same(state["config"])
        _check_data(run, state["data"])
        if state["place"] != _place(run):
            warnings.warn(
                f"the run continues with {_place(run)}, but began with {state['place']}: its "
                "figures will differ in the last bits from those of an uninterrupted run",
                stacklevel=3,
            )
        for name, part in _stateful(run).items():
            part.load_state_dict(state[name])
        run.progress = Progress(**state["progress"])
        run.progress.totals = run.progress.totals.to(run.fabric.device)
        [rng] = state["rng"]
        torch.set_rng_state(rng["cpu"])
        if run.fabric.device.type == "cuda" and "cuda" in rng:
            torch.cuda.set_rng_state(rng["cuda"], run.fabric.device)
        before = state["git_commits"]
        run.commits = [*before, *(one for one in run.commits if one != before[-1])]
    except ConfigError:
        raise
    except _OF_DAMAGE as error:
        raise _damaged(run.config.out / "last.pt", error) from error


def load_best(run: Run) -> None:
    """Load the weights to be tested; ConfigError if they are damaged, or of another run."""
    state = read(run.config.out / "best.pt")
    try:
        run.config.check_same(state["config"])
        if state["row"] != run.progress.best:
            raise ConfigError(
                f"{run.config.out / 'best.pt'} was written by another run: start again with an out "
                "of its own"
            )
        run.evaluated.load_state_dict(state["model"])
    except ConfigError:
        raise
    except _OF_DAMAGE as error:
        raise _damaged(run.config.out / "best.pt", error) from error


@contextmanager
def folder_of_its_own(run: Run) -> Iterator[None]:
    """Make the folder of a run; ConfigError if that fails, or another process is training in it.

    The lock is on the folder itself, so that no file is left, and ends with the process.
    """
    out = run.config.out
    try:
        out.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out).close()
    except OSError as error:
        raise ConfigError(
            f"out must be a folder that can be written to; got {out} ({error.strerror})"
        ) from error
    folder = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another run is training in {out}: wait for it, or choose another out"
            ) from None
        yield
    finally:
        os.close(folder)


def results_of(config: TrainConfig) -> dict[str, Any] | None:
    """Return the results of a finished run that is to be resumed; None if there are none."""
    file = config.out / "results.json"
    if not (config.resume and file.is_file()):
        return None
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
        written, _ = dict(results["config"]), results["finished"]
    except _OF_DAMAGE as error:
        raise _damaged(file, error) from error
    config.check_same(written)
    return results


def read(path: Path) -> dict[str, Any]:
    """Return the content of last.pt or best.pt; ConfigError if it is damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of many types, for files damaged in different ways
        raise _damaged(path, error) from error


def _write(run: Run, name: str, state: dict[str, Any]) -> None:
    with replacing(run.config.out / name) as temporary:
        run.fabric.save(temporary, {**state, "config": run.config.identity()})


def _damaged(path: Path, error: Exception) -> ConfigError:
    reason = str(error).partition("\n")[0] or "no content"
    return ConfigError(
        f"{path} is damaged ({type(error).__name__}: {reason}): delete it, start again without "
        "--resume, or choose another --out"
    )


def _stateful(run: Run) -> dict[str, Any]:
    averaged = {} if run.average is None else {"average": run.average}
    return averaged | {
        "model": run.model,
        "optimizer": run.optimizer,
        "schedule": run.schedule,
        "precision": run.fabric.strategy.precision,  # the loss scale of 16-mixed
    }


def _data(run: Run) -> dict[str, Any]:
    """Return what is known of the data, which must be the same when the run is resumed."""
    task = run.task
    known = {"data_set": task.data_set, "class_names": task.class_names, **task.facts}
    plain: dict[str, Any] = json.loads(json.dumps(known))
    return plain


def _check_data(run: Run, before: dict[str, Any]) -> None:
    for name, now in _data(run).items():
        if before.get(name, now) != now:
            raise ConfigError(
                f"the data have changed since the run in {run.config.out} began: {name} was "
                f"{before[name]!r} and is {now!r}; start again without --resume, or choose another "
                "--out"
            )


def _place(run: Run) -> str:
    return f"{torch.get_num_threads()} threads on {run.fabric.device.type}"


def _rng_state(run: Run) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if run.fabric.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(run.fabric.device)
    return states
