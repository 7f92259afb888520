"""Train a sequence classifier: ``python -m experiments.train mnist``.

One loop on Lightning Fabric. In the folder ``--out`` it leaves

    log.csv       a row per epoch
    last.pt       the whole state of the run: --resume goes on from it, to the same bits
    best.pt       the weights to be tested: by default those that did best on the validation data
    results.json  the final figures, once the run has ended; test data is used for these alone
    test.npz      log-probabilities (N, classes), or predictions (N,), and labels (N,) of the test

Several seeds, or the folds of a protocol, are runs in folders of their own below ``--out``; see
``runs.py``.


``torchrun --nproc-per-node 2 -m experiments.train mnist`` trains with several workers, see
``distributed.py``. Each computes the validation and test figures of its own accord, as the others
would only wait for one that did; the first one's count, and it alone prints and writes.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from experiments.datasets import DataError
from experiments.files import replacing, write_text
from experiments.models import SequenceClassifier
from experiments.peers import PeerClassifier
from experiments.process import stop_signals, threads
from experiments.provenance import provenance
from experiments.tasks import TASKS
from experiments.train import distributed
from experiments.train.config import ConfigError, TrainConfig, add_arguments
from experiments.train.objectives import Evaluation, Objective
from experiments.train.summary import accuracy_together, figure_of, summarise
from experiments.train.task import Batch, Sequences, Task
from irevrnn import ReversalError
from irevrnn.allocator import use_caching_allocator

#: Steps between two looks at the running loss: on a GPU each look waits for the device.
LOOK_EVERY = 10
#: Wrongly classified test sequences that the results name.
MISTAKES_SHOWN = 25


# --- the parts of a run -------------------------------------------------------------------------


def make_model(config: TrainConfig, task: Task) -> nn.Module:
    """The network of ``config``, freshly drawn, for the sequences of ``task``."""
    sizes = (task.input_size, task.num_classes, config.hidden_size, config.num_layers)
    if config.model != "irevrnn":
        return PeerClassifier(
            config.model, *sizes, dropout=config.dropout, read=config.read, read_at=task.read_at
        )
    return SequenceClassifier(
        *sizes,
        num_couplings=config.num_couplings,
        activation=config.activation,
        longest_period=config.longest_period,
        shortest_period=config.shortest_period,
        longest_memory=config.longest_memory,
        norm=None if config.norm == "none" else config.norm,
        dropout=config.dropout,
        residual=config.residual,
        read=config.read,
        memory=config.memory,
        memory_budget=config.memory_budget,
        read_at=task.read_at,
    )


def make_optimizer(config: TrainConfig, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW. Weight decay is for the matrices that mix units; the recurrence has its own rates."""
    groups: dict[str, dict[str, Any]] = {
        "matrices": {"lr": config.lr, "weight_decay": config.weight_decay},
        "vectors": {"lr": config.lr},
        "recurrent weights": {"lr": config.lr * config.recurrent_lr_scale},
        "couplings": {"lr": config.lr * config.coupling_lr_scale},
    }
    for name, parameter in model.named_parameters():
        groups[_group_of(name, parameter)].setdefault("params", []).append(parameter)
    return torch.optim.AdamW([g for g in groups.values() if "params" in g], weight_decay=0.0)


def _group_of(name: str, parameter: nn.Parameter) -> str:
    if name.endswith("recurrent_weight"):
        return "recurrent weights"
    if name.endswith(("coupling_a", "coupling_b")):
        return "couplings"
    return "matrices" if parameter.ndim >= 2 else "vectors"


def make_schedule(config: TrainConfig, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """The learning rate over all ``steps`` of the run."""
    if config.schedule == "onecycle":
        highest = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(optimizer, highest, total_steps=steps, cycle_momentum=False)
    if config.schedule == "cosine":
        return CosineAnnealingLR(optimizer, steps)
    return LambdaLR(optimizer, lambda step: 1.0)


@torch.no_grad()
def calibrate(model: nn.Module, batches: Iterator[Batch]) -> None:
    """Let every batch norm of ``model`` take its statistics from ``batches`` alone.

    Running statistics lag behind the weights. After thousands of steps, the offset of a state can
    be large beside what differs between sequences, and a small lag spoils all that is read from it.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # type: ignore[assignment]  # the plain mean over all batches
    was_training = model.training
    model.train()
    for x, _ in batches:
        model(*x) if isinstance(x, tuple) else model(x)
    model.train(was_training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterator[Batch], objective: Objective) -> Evaluation:
    """Judge what ``model`` makes of ``batches`` in evaluation mode."""
    was_training = model.training
    model.eval()
    pairs = [(_outputs(model, x, objective), y) for x, y in batches]
    model.train(was_training)
    outputs, labels = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return objective.judge(outputs, labels)


def _outputs(model: nn.Module, x: Sequences, objective: Objective) -> Tensor:
    """One output for each sequence, or each of its answers: the average over its clips."""
    sequences, lengths = x if isinstance(x, tuple) else (x, None)
    clips = sequences.shape[1] if sequences.dim() == 4 else 1
    sequences = sequences.flatten(0, 1) if sequences.dim() == 4 else sequences
    if lengths is None:
        output = model(sequences)
    else:
        output = model(sequences, lengths.repeat_interleave(clips))
    return objective.average(output, clips)


# --- the loop -----------------------------------------------------------------------------------


@dataclass
class Progress:
    """How far a run has come, apart from its weights.

    Attributes:
        epoch, batch: epochs done, and batches done of the next one.
        totals: summed loss of those batches, and figure (of the task's objective) summed over their
            sequences, (2,) float64.
        seconds: time spent, over all sessions of the run.
        best: the row of ``history`` whose weights are to be tested.
        history: a row per epoch, as in log.csv.
    """

    totals: Tensor
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    best: dict[str, Any] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)


class Run:
    """One training run: its state, a step of it, and its files."""

    def __init__(self, config: TrainConfig, progress_bar: bool) -> None:
        self.config = config
        self.fabric = Fabric(**_placement(config))
        self.fabric.launch()
        self.speaks = progress_bar and self.fabric.is_global_zero
        torch.manual_seed(config.seed)
        self.task = config.task(self.fabric.device)
        _check_validation(config, self.task)
        _check_reading(config, self.task)
        self.network = make_model(config, self.task)
        if self.workers > 1:
            self._prepare_to_share()
        optimizer = make_optimizer(config, self.network)
        self.total_steps = config.epochs * self.task.steps_per_epoch
        self.schedule = make_schedule(config, optimizer, self.total_steps)
        self.model, self.optimizer = self.fabric.setup(self.network, optimizer)
        self.average = _average(self.network, config.average) if config.average else None
        self.progress = Progress(self._zero_totals())
        self.started = time.monotonic()

    @property
    def workers(self) -> int:
        """How many processes train together."""
        return self.fabric.world_size

    def _prepare_to_share(self) -> None:
        """Check that batches can be shared, and let batch norm see all of a batch."""
        if self.config.batch_size % self.workers:
            raise ConfigError(
                f"batch_size must be a multiple of the {self.workers} workers; "
                f"got {self.config.batch_size}"
            )
        distributed.share_statistics(self.network)
        # Weights were drawn alike; from here on each worker draws its own dropout.
        torch.manual_seed(self.config.seed + 1_000_003 * (1 + self.fabric.global_rank))

    def _share(self, batch: Tensor) -> Tensor:
        return distributed.share_of(batch, self.fabric.global_rank, self.workers)

    def on_any_worker(self, wish: bool) -> bool:
        """Whether ``wish`` is true on at least one worker: all then do the same."""
        if self.workers == 1:
            return wish
        count = torch.tensor(float(wish), device=self.fabric.device)
        return distributed.summed(count, self.workers).item() > 0

    def agreed(self, value: Any) -> Any:
        """The first worker's ``value``: machines may differ in their files and in last bits."""
        return value if self.workers == 1 else self.fabric.broadcast(value)

    def _zero_totals(self) -> Tensor:
        return torch.zeros(2, dtype=torch.float64, device=self.fabric.device)

    @property
    def judged(self) -> nn.Module:
        """The model that is validated, kept and tested."""
        return self.model if self.average is None else self.average.module

    def step(self, x: Sequences, y: Tensor) -> None:
        """Take one optimizer step on a batch, of which this worker takes its share."""
        y = self._share(y)
        if isinstance(x, tuple):
            output = self.model(*map(self._share, x))
        else:
            output = self.model(self._share(x))
        loss = self.task.objective.loss(output, y, self.config.label_smoothing)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        # Not an error if infinite: the loss scaling of 16-mixed provokes that now and then.
        self.fabric.clip_gradients(
            self.model, self.optimizer, max_norm=self.config.clip, error_if_nonfinite=False
        )
        self.optimizer.step()
        self.schedule.step()
        if isinstance(self.network, SequenceClassifier):
            self.network.clip_recurrent_weights_()
        if self.average is not None:
            self.average.update_parameters(self.network)
        figure = self.task.objective.total(output, y)
        totals = torch.stack([loss.detach().double() / self.workers, figure])
        self.progress.totals += distributed.summed(totals, self.workers)
        self.progress.batch += 1

    def look(self) -> tuple[float, float]:
        """Mean loss and figure (such as accuracy) of the epoch so far.

        Raises:
            FloatingPointError: the loss is no longer a number.
        """
        loss, figure = (self.progress.totals / self.progress.batch).tolist()
        self._check_finite("training loss", loss)
        return loss, figure / self.config.batch_size

    def _check_finite(self, name: str, value: float) -> None:
        if value - value != 0:  # infinite, or not a number
            where = f"epoch {self.progress.epoch + 1}, batch {self.progress.batch}"
            raise FloatingPointError(
                f"the {name} is {value} at {where} or just before it: try a lower lr "
                f"(now {self.config.lr}) or clip (now {self.config.clip})"
            )

    def finish_epoch(self) -> None:
        """Validate, log, and keep the weights if they are the best so far."""
        loss, figure = self.look()
        objective, validation = self.task.objective, None
        if self.config.calibrate:
            batches = self.task.train_batches(self.progress.epoch, 0)
            calibrate(self.judged, islice(batches, self.config.calibrate))
        if self.task.val_batches is not None:
            validation = self.agreed(evaluate(self.judged, self.task.val_batches(), objective))
            self._check_finite("validation loss", validation.loss)
        progress = self.progress
        row = {
            "epoch": progress.epoch + 1,
            "step": (progress.epoch + 1) * self.task.steps_per_epoch,
            "train_loss": loss,
            f"train_{objective.figure}": figure,
            "val_loss": validation and validation.loss,
            f"val_{objective.figure}": validation and validation.figure,
            "lr": self.schedule.get_last_lr()[0],
            "seconds": self.seconds(),
        }
        progress.history.append(row)
        last = self.config.keep == "last"
        if last or progress.best is None or self._rank(row) > self._rank(progress.best):
            progress.best = row
            self._save("best.pt", {"model": self.judged, "row": row})
        progress.epoch, progress.batch = progress.epoch + 1, 0
        progress.totals = self._zero_totals()
        self.save_last()
        if self.fabric.is_global_zero:
            write_text(self.config.out / "log.csv", _to_csv(progress.history))

    def _rank(self, row: dict[str, Any]) -> tuple[float, float]:
        objective = self.task.objective
        return objective.sign * row[f"val_{objective.figure}"], -row["val_loss"]

    def seconds(self) -> float:
        """Time spent on the run, by this session and those before it."""
        return self.progress.seconds + time.monotonic() - self.started

    # Files. last.pt is written after best.pt: killed between the two, the run repeats some steps
    # and writes best.pt again, the same.

    def _save(self, name: str, state: dict[str, Any]) -> None:
        if not self.fabric.is_global_zero:
            self.fabric.barrier()  # as the saving worker does
            return
        with replacing(self.config.out / name) as temporary:
            self.fabric.save(temporary, {**state, "config": self.config.identity()})

    def save_last(self) -> None:
        """Write the whole state of the run."""
        if self.progress.batch:
            self.look()  # weights that have become NaN must not take the place of good ones
        state = self._stateful() | {
            "place": self._place(),
            "progress": asdict(self.progress) | {"seconds": self.seconds()},
            "rng": distributed.gathered(self._rng(), self.workers),
        }
        self._save("last.pt", state)

    def _rng(self) -> dict[str, Tensor]:
        """The states of the random generators of this worker."""
        states = {"cpu": torch.get_rng_state()}
        if self.fabric.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.fabric.device)
        return states

    def _set_rng(self, states: dict[str, Tensor]) -> None:
        torch.set_rng_state(states["cpu"])
        if self.fabric.device.type == "cuda" and "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"], self.fabric.device)

    def _stateful(self) -> dict[str, Any]:
        averaged = {} if self.average is None else {"average": self.average}
        return averaged | {
            "model": self.model,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "precision": self.fabric.strategy.precision,  # the loss scale of 16-mixed
        }

    def _place(self) -> str:
        each = f"{torch.get_num_threads()} threads on {self.fabric.device.type}"
        return each if self.workers == 1 else f"{self.workers} workers with {each} each"

    def _load(self, name: str) -> dict[str, Any]:
        """What the first worker finds in the file: the folder may be on its machine alone."""
        first = self.fabric.is_global_zero
        path = self.config.out / name
        return self.agreed(
            torch.load(path, map_location="cpu", weights_only=True) if first else None
        )

    def load_last_if_wanted(self) -> bool:
        """Resume the run in ``out`` if that is asked for and there is one."""
        there = self.agreed((self.config.out / "last.pt").exists())
        if self.config.resume and there:
            self.load_last()
        return self.config.resume and there

    def load_last(self) -> None:
        """Go back to the state in last.pt.

        Raises:
            ConfigError: it was written by a run with other options.
        """
        state = self._load("last.pt")
        _check_same(state["config"], self.config)
        if state["place"] != self._place():
            warnings.warn(
                f"the run goes on with {self._place()}, where it began with {state['place']}: "
                "its figures will differ in the last bits from those of an uninterrupted run",
                stacklevel=3,
            )
        for name, part in self._stateful().items():
            part.load_state_dict(state[name])
        self.progress = Progress(**state["progress"])
        self.progress.totals = self.progress.totals.to(self.fabric.device)
        if len(state["rng"]) == self.workers:  # else each keeps what it was seeded with
            self._set_rng(state["rng"][self.fabric.global_rank])

    def load_best(self) -> None:
        """Take the weights that are to be tested."""
        self.judged.load_state_dict(self._load("best.pt")["model"])

    def summary(self) -> dict[str, Any]:
        """All that is known of the run before the test data is read."""
        best, val_figure = self.progress.best or {}, f"val_{self.task.objective.figure}"
        return {
            "data_set": self.task.data_set,
            "data": dict(self.task.facts),
            "config": self.config.identity(),
            "seed": self.config.seed,
            "num_parameters": sum(p.numel() for p in self.network.parameters()),
            "device": str(self.fabric.device),
            "workers": self.workers,
            **provenance(),
            "wall_seconds": self.seconds(),
            "history": self.progress.history,
            "best_epoch": best.get("epoch"),
            val_figure: best.get(val_figure),
            "finished": False,
        }


def train(config: TrainConfig, *, progress: bool = True) -> dict[str, Any]:
    """Train, and test once at the end.

    Args:
        config: a single run, such as ``MnistConfig(epochs=3, out=Path("build/run"))``.
        progress: whether to show a progress bar and a line per epoch.

    Returns:
        The content of ``results.json``: configuration, provenance, history, ``val_accuracy``,
        ``test_accuracy``, ``confusion_matrix`` (rows: true class) and some ``mistakes``. If
        ``max_minutes`` ran out, ``finished`` is False and there are no test figures.

    Raises:
        FloatingPointError: the loss became infinite or NaN; last.pt is from before.
        OverflowError: with a fixed-point strategy, a value left its range.
        KeyboardInterrupt: Ctrl-C or a termination signal; last.pt is up to date.
        ConfigError: ``resume`` is set and the checkpoint was written with other options.
        DataError: the data cannot be had.
    """
    use_caching_allocator()
    with threads(config.threads), distributed.leaving_in_order():
        return _train(config, progress)


def _train(config: TrainConfig, progress: bool) -> dict[str, Any]:
    run = Run(config, progress)
    _open_folder(run)
    _say(run, _headline(run))
    with stop_signals() as stop, _progress_bar(run) as bar:
        finished = _fit(run, bar, stop)
    if run.on_any_worker(stop.is_set()):
        raise KeyboardInterrupt(f"stopped; {_way_on(run)}")
    if not finished:
        _say(run, f"max_minutes = {config.max_minutes} are over; {_way_on(run)}")
        return run.summary()
    return _finish(run)


def _fit(run: Run, bar: tqdm, stop: threading.Event) -> bool:
    """Train to the last epoch; return False if told to stop, or out of time, before that."""
    config, progress, task = run.config, run.progress, run.task
    minutes = float("inf") if config.max_minutes is None else config.max_minutes
    deadline = run.started + 60 * minutes
    while progress.epoch < config.epochs:
        bar.set_description(f"epoch {progress.epoch + 1}/{config.epochs}")
        for x, y in task.train_batches(progress.epoch, progress.batch):
            run.step(x, y)
            bar.update()
            if progress.batch % LOOK_EVERY == 0:
                loss, figure = run.look()
                name = task.objective.figure
                bar.set_postfix({"loss": f"{loss:.3f}", name: _shown(name, figure)}, refresh=False)
            halt = run.on_any_worker(stop.is_set() or time.monotonic() > deadline)
            if halt or (config.checkpoint_every and progress.batch % config.checkpoint_every == 0):
                run.save_last()
            if halt:
                return False
        run.finish_epoch()
        _say(run, _describe(progress.history[-1], config.epochs, task.objective.figure))
        if run.on_any_worker(stop.is_set()):
            return False
    return True


def _finish(run: Run) -> dict[str, Any]:
    """Test the weights that were kept and write the results."""
    run.load_best()
    results = run.summary() | {"finished": True}
    if run.config.test:
        test = run.agreed(evaluate(run.judged, run.task.test_batches(), run.task.objective))
        results |= _test(run, test)
        results["data"]["test_size"] = len(test.labels)
    name = f"{'test' if run.config.test else 'val'}_{run.task.objective.figure}"
    if run.fabric.is_global_zero:
        write_text(run.config.out / "results.json", json.dumps(results, indent=1) + "\n")
    _say(
        run,
        f"{run.task.data_set}: {name} {_shown(name, results[name])} "
        f"(weights of epoch {results['best_epoch']}); {run.config.out / 'results.json'}",
    )
    return results


def _test(run: Run, test: Evaluation) -> dict[str, Any]:
    objective = run.task.objective
    if run.fabric.is_global_zero:
        with replacing(run.config.out / "test.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, **{objective.outputs: test.outputs, "labels": test.labels})  # type: ignore[arg-type]
    return {
        f"test_{objective.figure}": test.figure,
        "test_loss": test.loss,
        **(_mistakes(test, run.task.num_classes) if run.task.num_classes > 1 else {}),
        **(run.task.test_details(test) if run.task.test_details else {}),
    }


def _mistakes(test: Evaluation, classes: int) -> dict[str, Any]:
    wrong = (test.predictions != test.labels).nonzero().flatten()[:MISTAKES_SHOWN].tolist()
    return {
        "confusion_matrix": _confusion_matrix(test, classes),
        "mistakes": [
            {"index": i, "label": int(test.labels[i]), "predicted": int(test.predictions[i])}
            for i in wrong
        ],
    }


def train_all(config: TrainConfig, *, progress: bool = True) -> dict[str, Any]:
    """Train whatever ``config`` asks for: one run, or one for each seed and fold.

    Each of several runs has a folder of its own below ``out``. With ``resume``, those that have
    ended are not done again, and the one that was stopped goes on.

    Args:
        config: the runs.
        progress: whether to show a progress bar and a line per epoch.

    Returns:
        The content of ``results.json`` in ``out``: of the one run, see :func:`train`, or of all of
        them, see :func:`experiments.train.summary.summarise` (with several seeds, also of these together:
        ``test_accuracy_together``). If ``max_minutes`` ran out, ``finished`` is False.

    Raises:
        As :func:`train`.
    """
    runs = config.runs()
    if len(runs) == 1:
        return _ended(runs[0][1]) or train(runs[0][1], progress=progress)
    if distributed.launched():
        raise ConfigError(
            f"folds and seeds are {len(runs)} runs, which several workers cannot share: start "
            "torchrun for one of them at a time, or run without it"
        )
    started = time.monotonic()
    results, files = [], []
    for name, one in runs:
        left = config.max_minutes and max(0, config.max_minutes - (time.monotonic() - started) / 60)
        one = replace(one, out=config.out / name, max_minutes=left)
        results.append(_ended(one) or train(one, progress=progress))
        files.append(one.out / "test.npz")
        if not results[-1]["finished"]:
            return {"finished": False}
    summary = summarise(config.identity(), results)
    figure = f"{'test' if config.test else 'val'}_{figure_of(results[0])}"
    if figure == "test_accuracy" and config.seeds > 1:
        summary["test_accuracy_together"] = accuracy_together(results, files)
    write_text(config.out / "results.json", json.dumps(summary, indent=1) + "\n")
    if progress:
        tqdm.write(
            f"{summary['data_set']}: {figure} {_shown(figure, summary[figure]['mean'])} on "
            f"average over {len(runs)} runs; {config.out / 'results.json'}"
        )
    return summary


def _ended(config: TrainConfig) -> dict[str, Any] | None:
    """The results of a run that has ended before, if it is to be resumed."""
    file = config.out / "results.json"
    if not (config.resume and file.is_file()):
        return None
    results = json.loads(file.read_text())
    _check_same(results["config"], config)
    return results


# --- small parts --------------------------------------------------------------------------------


def _placement(config: TrainConfig) -> dict[str, Any]:
    """Fabric's arguments for the device ("auto", "cpu", "cuda" or "cuda:N") and the precision."""
    device = config.device
    if device == "auto":  # not Fabric's, which would take an Apple GPU: the kernels have no Metal
        device = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = device.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N; got {device!r}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device is {device!r}, but PyTorch sees no GPU here; use cpu or auto")
    common = {"accelerator": kind, "precision": config.precision}
    if distributed.launched():
        _check_workers(config, kind, number)
        return common | distributed.placement()
    return common | {"devices": [int(number)] if number and kind == "cuda" else 1}


def _check_workers(config: TrainConfig, kind: str, number: str) -> None:
    if number:
        raise ConfigError(
            "device must be auto, cpu or cuda with several workers, each of which takes its own; "
            f"got {config.device!r}"
        )
    if kind == "cuda" and distributed.workers_here() > torch.cuda.device_count():
        raise ConfigError(
            f"device is cuda for {distributed.workers_here()} workers on this machine, which has "
            f"{torch.cuda.device_count()} GPUs: lower --nproc-per-node"
        )


def _check_same(written: dict[str, Any], config: TrainConfig) -> None:
    # What was written before there was such a field had its default.
    known = {field.name: field.default for field in fields(config)} | written
    for name, value in config.identity().items():
        if known[name] != value:
            raise ConfigError(
                f"{name} is {value!r}, but the run in {config.out} has {known[name]!r}: "
                "resume it with the options it was started with, or choose another out"
            )


def _check_validation(config: TrainConfig, task: Task) -> None:
    if task.val_batches is None and (config.keep == "best" or not config.test):
        raise ConfigError(
            "keep must be 'last', with test, if there is no validation data to choose by; "
            f"got keep {config.keep!r}, test {config.test}"
        )


def _check_reading(config: TrainConfig, task: Task) -> None:
    if task.read_at is None:
        return
    if config.read != "last":
        raise ConfigError(
            f"read must be last where several answers are read from a sequence; got {config.read!r}"
        )
    if config.model == "irevrnn" and config.norm == "batch":
        raise ConfigError(
            "norm must be layer or none where several answers are read from a sequence, which is "
            "never there at once; got 'batch'"
        )


def _open_folder(run: Run) -> None:
    """Resume the run in ``out``, or clear what another run left there."""
    if run.load_last_if_wanted() or not run.fabric.is_global_zero:
        return
    out = run.config.out
    out.mkdir(parents=True, exist_ok=True)
    if (out / "last.pt").exists():
        _say(run, f"replacing the run in {out} (to go on with it: --resume)")
    for name in ("last.pt", "best.pt", "log.csv", "results.json", "test.npz"):
        (out / name).unlink(missing_ok=True)


def _progress_bar(run: Run) -> tqdm:
    return tqdm(
        total=run.total_steps,
        initial=run.progress.epoch * run.task.steps_per_epoch + run.progress.batch,
        disable=not run.speaks,
        mininterval=1.0,  # a notebook or a log keeps every line
        unit="step",
        leave=False,
    )


def _average(network: nn.Module, decay: float) -> AveragedModel:
    """A running average of the weights, and of what ``norm="batch"`` normalises with."""
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def _confusion_matrix(test: Evaluation, classes: int) -> list[list[int]]:
    """How often label i (row) was taken for j (column)."""
    pairs = test.labels * classes + test.predictions
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes).tolist()


def _to_csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _say(run: Run, message: str) -> None:
    if run.speaks:
        tqdm.write(message)


def _headline(run: Run) -> str:
    facts = ", ".join(f"{name} {value}" for name, value in run.task.facts.items())
    parameters = sum(p.numel() for p in run.network.parameters())
    return (
        f"{run.task.data_set} ({facts}); {run.config.model} with {parameters:,} parameters, "
        f"seed {run.config.seed}, on {run.fabric.device}"
    )


def _describe(row: dict[str, Any], epochs: int, figure: str) -> str:
    validation = ""
    if row["val_loss"] is not None:
        shown = _shown(figure, row[f"val_{figure}"])
        validation = f"validation {row['val_loss']:.3f}, {shown}; "
    return (
        f"epoch {row['epoch']}/{epochs}: loss {row['train_loss']:.3f}, {figure.replace('_', ' ')} "
        f"{_shown(figure, row[f'train_{figure}'])}; {validation}{row['seconds']:.0f} s"
    )


def _shown(figure: str, value: float) -> str:
    """An accuracy as a percentage, an error as it is."""
    return f"{value:.2%}" if figure.endswith("accuracy") else f"{value:.4f}"


def _way_on(run: Run) -> str:
    return f"the run is in {run.config.out} and goes on with --resume (resume=True)"


# --- the command line ---------------------------------------------------------------------------


def add_tasks(parser: argparse.ArgumentParser) -> None:
    """Let a command take the name of a task and all options of a run on it."""
    tasks = parser.add_subparsers(dest="task", required=True)
    for name, kind in TASKS.items():
        description = (kind.__doc__ or "").partition("\n")[0]
        add_arguments(tasks.add_parser(name, help=description, description=description), kind)


def config_of(parser: argparse.ArgumentParser, arguments: dict[str, Any]) -> TrainConfig:
    """The run that the arguments of :func:`add_tasks` ask for; the parser refuses wrong ones."""
    kind = TASKS[arguments.pop("task")]
    try:
        return kind.of(**arguments)
    except ConfigError as error:
        parser.error(str(error))


def main(argv: list[str] | None = None) -> int:
    """Train as the command line says; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_tasks(parser)
    config = config_of(parser, vars(parser.parse_args(argv)))
    try:
        train_all(config)
    except KeyboardInterrupt as error:
        print(f"experiments.train.loop: {error}", file=sys.stderr)
        return 130
    except (ConfigError, DataError, ArithmeticError, ReversalError) as error:
        print(f"experiments.train.loop: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
