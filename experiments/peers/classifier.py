"""Classifiers around the networks we compare with, and their stacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from experiments.models import make_embedding, mean_over_time, outputs_at
from experiments.peers.gates import start_gates
from experiments.peers.indrnn import IndRNN
from experiments.peers.layers import GatedBlock, PlainLayer
from experiments.peers.resnet import ResNet
from experiments.peers.selective import MinGRU, Selective
from experiments.train.task import ReadAt
from irevrnn import IRevStack


class PeerClassifier(nn.Module):
    """A stack of another recurrence, or a convolutional network, with a readout.

    Args:
        layers: :func:`gates_of`, :func:`plain_stack` or :func:`gated_stack` of a recurrence, or
            :class:`ResNet`, to be called with ``input_size`` and all of ``options``.
        options: of these layers.
        input_size, num_classes, hidden_size, dropout, read, read_at: as for
            :class:`experiments.models.SequenceClassifier`, and so are the shapes.
    """

    def __init__(
        self,
        layers: Callable[..., nn.Module],
        input_size: int,
        num_classes: int,
        *,
        hidden_size: int,
        dropout: float = 0.0,
        read: str = "last",
        read_at: ReadAt | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.read, self.read_at = read, read_at
        self.rnn = layers(input_size, hidden_size=hidden_size, dropout=dropout, **options)
        if isinstance(self.rnn, ResNet) and read != "mean":
            raise ValueError(f"read must be mean with resnet, which merges steps; got {read!r}")
        top: Any = self.rnn.blocks[-1] if isinstance(self.rnn, IRevStack) else None
        gated = isinstance(top, GatedBlock)
        self.dropout = nn.Dropout(0.0 if gated else dropout)  # a block has its own
        self.readout = nn.Linear(top.width if gated else hidden_size, num_classes)

    @property
    def embedding(self) -> nn.Module:
        """The embedding before a stack of gated blocks."""
        return cast(IRevStack, self.rnn).blocks[0]

    def clip_recurrent_weights_(self) -> None:
        """Bring recurrent weights back to their range, after a step of the optimizer."""
        for module in self.modules():
            if isinstance(module, IndRNN):
                module.clip_recurrent_weights_()

    def forward(self, input: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Classify each sequence."""
        return self.readout(self.dropout(self._read(input, lengths)))

    def _read(self, input: Tensor, lengths: Tensor | None) -> Tensor:
        if isinstance(self.rnn, IRevStack):
            if self.read_at is not None:
                return outputs_at(self.rnn, input, self.read_at)
            last = self.read == "last"
            output, _ = self.rnn(input, lengths=lengths, return_sequence=not last)
            return output if last else mean_over_time(output, lengths)
        if isinstance(self.rnn, ResNet):
            return mean_over_time(*self.rnn(input, lengths))
        # The recurrence runs forward only, so padding at the end does not reach the steps read.
        output, _ = self.rnn(input)
        if self.read_at is not None:
            read = self.read_at
            return output[:, read if isinstance(read, slice) else [steps - 1 for steps in read]]
        if self.read == "mean":
            return mean_over_time(output, lengths)
        return output[:, -1] if lengths is None else output[torch.arange(len(output)), lengths - 1]


# --- the networks -------------------------------------------------------------------------------


def gates_of(
    kind: type[nn.LSTM | nn.GRU], inputs: int, *, hidden_size: int, num_layers: int,
    dropout: float, forget_bias: float | None = None, chrono: float | None = None,
) -> nn.Module:  # fmt: skip
    """Build PyTorch's LSTM or GRU, whose gates start as :func:`start_gates` says."""
    # They warn of dropout in a single layer.
    between = dropout if num_layers > 1 else 0.0
    rnn = kind(inputs, hidden_size, num_layers, batch_first=True, dropout=between)
    start_gates(rnn, forget_bias, chrono)
    return rnn


def plain_stack(
    kind: Callable[..., nn.Module], inputs: int, *, hidden_size: int, num_layers: int,
    dropout: float, norm: str | None = None, **options: Any,
) -> IRevStack:  # fmt: skip
    """Build plain layers of a recurrence, which takes ``options``."""
    plain = []
    for index in range(num_layers):
        last = index == num_layers - 1
        if kind is IndRNN:
            options["last"] = last
        recurrence = kind(hidden_size if index else inputs, hidden_size, **options)
        plain.append(PlainLayer(recurrence, hidden_size, norm, 0.0 if last else dropout))
    return IRevStack(plain)


def gated_stack(
    kind: type[nn.Module], inputs: int, *, hidden_size: int, num_layers: int,
    dropout: float, width: int, norm: str | None, sparsity: float | None,
    tokens: bool = False, **options: Any,
) -> IRevStack:  # fmt: skip
    """Build an embedding and gated blocks around a recurrence, which takes ``options``."""
    sparse = sparsity is not None
    features = hidden_size if issubclass(kind, Selective) else width  # the others project back
    if kind is MinGRU:
        options["candidate_bias"] = not sparse
    # A norm of a single feature's embedding would leave nothing but the sign.
    blocks = [
        GatedBlock(
            width, kind(width, hidden_size, **options), features, norm if index else None, dropout,
            not sparse,
        )
        for index in range(num_layers)
    ]  # fmt: skip
    return IRevStack([make_embedding(inputs, width, sparse, tokens), *blocks])
