"""Objectives: the loss that a task trains on, and the figure that models are compared by."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from torch import Tensor
from torch.nn import functional as F


@dataclass
class Evaluation:
    """The answers of a model to N questions: one or several for each sequence.

    Attributes:
        loss: mean cross entropy, or mean squared error.
        figure: the figure of the objective, such as the accuracy.
        outputs: log-probabilities, (N, classes), or predicted numbers, (N,).
        predictions: classes, (N,) int64, or numbers, (N,).
        labels: the right answers, in the form of ``predictions``.
    """

    loss: float
    figure: float
    outputs: Tensor
    predictions: Tensor
    labels: Tensor


class Classification:
    """Name a class; compared by the share of right answers.

    Outputs of a network are logits, (batch, classes) or (batch, answers, classes); targets are
    int64, without the last dimension. The average over clips is that of their probabilities.

    Attributes:
        figure: name of the figure in the results (``test_<figure>``).
        training_figure: name of the mean of :meth:`total` (``train_<training_figure>``).
        sign: 1 if a higher figure is better, -1 if a lower one is.
        outputs: name of an :class:`Evaluation`'s outputs in files.
    """

    figure, sign, outputs = "accuracy", 1, "log_probabilities"
    training_figure = "accuracy"

    def loss(self, output: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
        """Return the loss of a batch, a scalar."""
        return F.cross_entropy(
            output.flatten(0, -2), target.flatten(), label_smoothing=label_smoothing
        )

    def total(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the training figure, summed over the sequences of a batch, a scalar."""
        answers = target[0].numel()
        return (output.detach().argmax(-1) == target).sum().double() / answers

    def average(self, output: Tensor, clips: int) -> Tensor:
        """Return one answer to each question, in float64, from all its clips."""
        scores = output.double().log_softmax(-1)
        scores = scores.view(-1, clips, *output.shape[1:]).logsumexp(1) - math.log(clips)
        return scores.flatten(0, -2)

    def judge(self, outputs: Tensor, labels: Tensor) -> Evaluation:
        """Evaluate the results of :meth:`average`."""
        labels = labels.flatten()
        loss = F.nll_loss(outputs, labels).item()
        outputs, labels = outputs.cpu(), labels.cpu()
        predictions = outputs.argmax(1)
        score = self.score(predictions.numpy(), labels.numpy())
        return Evaluation(loss, score, outputs, predictions, labels)

    def score(self, predictions: np.ndarray, labels: np.ndarray) -> float:
        """Return the figure of predicted and right classes, (N,) int64 each."""
        return float((predictions == labels).mean())


class MeanF1(Classification):
    """Name a class; compared by the mean of the F1 scores of the first ``classes`` classes.

    The F1 score of a class is 2 * hits / (times predicted + times true), 0 where both are 0. It is
    that of all sequences together, so that training shows the accuracy instead.
    """

    figure = "mean_f1"

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def score(self, predictions: np.ndarray, labels: np.ndarray) -> float:
        def count(of: np.ndarray) -> np.ndarray:
            return np.bincount(of, minlength=self.classes)[: self.classes]

        hits = count(labels[predictions == labels])
        return float((2 * hits / np.maximum(count(predictions) + count(labels), 1)).mean())


class CrossEntropy(Classification):
    """Name a class; compared by the mean cross entropy, in nats."""

    figure, sign = "cross_entropy", -1

    def judge(self, outputs: Tensor, labels: Tensor) -> Evaluation:
        found = super().judge(outputs, labels)
        return replace(found, figure=found.loss)


class Regression:
    """Predict a number; compared by the mean squared error, which is also the loss.

    Outputs of a network are (batch, 1), targets (batch,) float32; methods as in
    :class:`Classification`. There are no labels to smooth.
    """

    figure, sign, outputs = "squared_error", -1, "predictions"
    training_figure = "squared_error"

    def loss(self, output: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
        return F.mse_loss(output.squeeze(-1), target)

    def total(self, output: Tensor, target: Tensor) -> Tensor:
        return (output.detach().squeeze(-1) - target).double().square().sum()

    def average(self, output: Tensor, clips: int) -> Tensor:
        return output.double().view(-1, clips).mean(1)

    def judge(self, outputs: Tensor, labels: Tensor) -> Evaluation:
        error = (outputs - labels).square().mean().item()
        return Evaluation(error, error, outputs.cpu(), outputs.cpu(), labels.cpu())


Objective: TypeAlias = Classification | Regression
