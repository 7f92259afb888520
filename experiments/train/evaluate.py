"""Evaluating a model, and calibrating its batch norm before that."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from experiments.train.model import forward, in_dtype_of
from experiments.train.objectives import Evaluation, Objective
from experiments.train.task import Batch, Input

#: Wrongly classified test sequences that the results name.
MISTAKES_SHOWN = 25


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[Batch], objective: Objective) -> Evaluation:
    """Evaluate ``model`` on ``batches`` in evaluation mode."""
    was_training = model.training
    model.eval()
    pairs = [(_answers(model, x, objective), y) for x, y in batches]
    model.train(was_training)
    outputs, labels = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return objective.judge(outputs, labels)


def _answers(model: nn.Module, x: Input, objective: Objective) -> Tensor:
    """Return one output for each sequence, or each of its answers: the average over its clips."""
    sequences, *lengths = x if isinstance(x, tuple) else (x,)
    clips = 1
    if sequences.dim() == 4:
        clips, sequences = sequences.shape[1], sequences.flatten(0, 1)
    lengths = [steps.repeat_interleave(clips) for steps in lengths]
    return objective.average(model(in_dtype_of(model, sequences), *lengths), clips)


@torch.no_grad()
def calibrate(model: nn.Module, batches: Iterable[Batch]) -> None:
    """Replace the statistics of every batch norm of ``model`` by those of ``batches``.

    Running statistics lag behind the weights. After thousands of steps, the offset of a state can
    be large beside the differences between sequences, and a small lag spoils the readout.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm1d)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
    was_training = model.training
    model.train()
    for x, _ in batches:
        forward(model, x)
    model.train(was_training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def mistakes(test: Evaluation, classes: int) -> dict[str, Any]:
    """Return the confusion matrix (rows: true class) and some wrongly classified sequences."""
    wrong = (test.predictions != test.labels).nonzero().flatten()[:MISTAKES_SHOWN].tolist()
    shown = [
        {"index": i, "label": int(test.labels[i]), "predicted": int(test.predictions[i])}
        for i in wrong
    ]
    pairs = torch.bincount(test.labels * classes + test.predictions, minlength=classes**2)
    return {"confusion_matrix": pairs.view(classes, classes).tolist(), "mistakes": shown}
