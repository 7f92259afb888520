"""What a task asks of a network: the loss it trains on, and the figure it is judged by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.nn import functional as F


@dataclass
class Evaluation:
    """What a model made of N questions: one for each sequence, or several one after the other.

    Attributes:
        loss: mean cross entropy, or mean squared error.
        figure: what the model is judged by: see ``figure`` of the objective.
        outputs: log-probabilities, (N, classes), or the predicted numbers, (N,).
        predictions: classes, (N,) int64, or numbers, (N,).
        labels: what they should be.
    """

    loss: float
    figure: float
    outputs: Tensor
    predictions: Tensor
    labels: Tensor


class Objective(Protocol):
    """What :class:`Classification` and :class:`Regression` have in common.

    Attributes:
        figure: name of what a model is judged by, in the results (``test_<figure>``).
        sign: 1 if more of it is better, -1 if less.
        outputs: name of the outputs of an :class:`Evaluation` in files.
    """

    figure: str
    sign: int
    outputs: str

    def loss(self, output: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
        """The loss of a batch, to be minimised: a scalar."""

    def total(self, output: Tensor, target: Tensor) -> Tensor:
        """The figure, summed over the sequences of a batch: a scalar."""

    def average(self, output: Tensor, clips: int) -> Tensor:
        """One answer to each question of a batch, in float64, from all clips of its sequence."""

    def judge(self, outputs: Tensor, labels: Tensor) -> Evaluation:
        """Evaluate all that :meth:`average` gave."""


class Classification:
    """Name a class; judged by the share of right answers.

    Outputs of a network are logits, (batch, classes) or (batch, questions, classes); targets are
    int64, without the last dimension.
    """

    figure = "accuracy"
    sign = 1
    outputs = "log_probabilities"

    def loss(self, output: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
        """Mean cross entropy."""
        return F.cross_entropy(
            output.flatten(0, -2), target.flatten(), label_smoothing=label_smoothing
        )

    def total(self, output: Tensor, target: Tensor) -> Tensor:
        """Sum of the shares of right answers."""
        questions = target[0].numel()
        return (output.detach().argmax(-1) == target).sum().double() / questions

    def average(self, output: Tensor, clips: int) -> Tensor:
        """(N, classes): the logarithm of the mean of the clips' probabilities."""
        scores = output.double().log_softmax(-1)
        scores = scores.view(-1, clips, *output.shape[1:]).logsumexp(1) - math.log(clips)
        return scores.flatten(0, -2)

    def judge(self, outputs: Tensor, labels: Tensor) -> Evaluation:
        """Cross entropy and accuracy."""
        labels = labels.flatten()
        predictions = outputs.argmax(1)
        accuracy = (predictions == labels).double().mean().item()
        loss = F.nll_loss(outputs, labels).item()
        return Evaluation(loss, accuracy, outputs.cpu(), predictions.cpu(), labels.cpu())


class Regression:
    """Predict a number; judged by the mean squared error, which is the loss too.

    Outputs of a network are (batch, 1), targets (batch,) float32.
    """

    figure = "squared_error"
    sign = -1
    outputs = "predictions"

    def loss(self, output: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
        """Mean squared error; there are no labels to smooth."""
        return F.mse_loss(output.squeeze(-1), target)

    def total(self, output: Tensor, target: Tensor) -> Tensor:
        """Sum of squared errors."""
        return (output.detach().squeeze(-1) - target).double().square().sum()

    def average(self, output: Tensor, clips: int) -> Tensor:
        """(N,): the mean over the clips."""
        return output.double().view(-1, clips).mean(1)

    def judge(self, outputs: Tensor, labels: Tensor) -> Evaluation:
        """Mean squared error."""
        error = (outputs - labels).square().mean().item()
        return Evaluation(error, error, outputs.cpu(), outputs.cpu(), labels.cpu())
