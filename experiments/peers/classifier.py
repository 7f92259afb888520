"""Classifiers around the networks we compare with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from experiments.models import make_embedding, mean_over_time
from experiments.peers.cornn import CoRNN
from experiments.peers.gates import start_gates
from experiments.peers.indrnn import IndRNN
from experiments.peers.linoss import LinOSS
from experiments.peers.lru import LRU
from experiments.peers.mingru import MinGRU
from experiments.peers.resnet import ResNet
from experiments.peers.revgru import RevGRU
from experiments.peers.stack import EVERY, At, GatedBlock, PlainLayer, Stack


class PeerClassifier(nn.Module):
    """A stack of another recurrence, or a convolutional network, with a readout.

    Args:
        kind: key of :data:`PEERS`.
        input_size, num_classes, hidden_size, num_layers, dropout, read, read_at: as for
            :class:`experiments.models.SequenceClassifier`, and so are the shapes.
        options: of the kind, see :data:`PEERS`.
    """

    def __init__(
        self,
        kind: str,
        input_size: int,
        num_classes: int,
        hidden_size: int = 128,
        num_layers: int = 1,
        dropout: float = 0.0,
        read: str = "last",
        read_at: tuple[int, ...] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.read, self.read_at = read, read_at
        peer = PEERS[kind]
        self.rnn = peer.build(input_size, hidden_size, num_layers, dropout, **options)
        self.dropout = nn.Dropout(0.0 if peer.gated else dropout)  # a block has its own
        features = self.rnn.features if isinstance(self.rnn, Stack) else hidden_size
        self.readout = nn.Linear(features, num_classes)

    @property
    def embedding(self) -> nn.Module:
        """The embedding before a stack of gated blocks."""
        return cast(Stack, self.rnn).embedding

    def forward(self, input: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Classify each sequence."""
        at: At = EVERY
        if self.read_at is not None:
            at = torch.tensor(self.read_at, device=input.device) - 1
        elif self.read == "last" and lengths is None:
            at = slice(-1, None)
        if isinstance(self.rnn, Stack):
            output = self.rnn(input, lengths, at)
        elif isinstance(self.rnn, ResNet):
            output, lengths = self.rnn(input, lengths)
        else:
            output = self.rnn(input)[0][:, at]
        # The recurrence runs forward only, so padding at the end does not reach the steps read.
        if self.read_at is not None:
            read = output
        elif self.read == "mean":
            read = mean_over_time(output, lengths)
        elif lengths is None:
            read = output[:, -1]
        else:
            read = output[torch.arange(len(output)), lengths - 1]
        return self.readout(self.dropout(read))


# --- the networks -------------------------------------------------------------------------------


def _lstm_or_gru(
    kind: type[nn.LSTM | nn.GRU], inputs: int, hidden: int, layers: int, dropout: float,
    forget_bias: float | None = None, chrono: float | None = None,
) -> nn.Module:  # fmt: skip
    # They warn of dropout in a single layer.
    rnn = kind(inputs, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
    start_gates(rnn, forget_bias, chrono)
    return rnn


def _plain(
    kind: type[IndRNN | CoRNN | RevGRU], inputs: int, hidden: int, layers: int, dropout: float,
    norm: str | None = None, **options: Any,
) -> Stack:  # fmt: skip
    plain = []
    for index in range(layers):
        last = index == layers - 1
        if kind is IndRNN:
            options["last"] = last
        recurrence = kind(hidden if index else inputs, hidden, **options)
        plain.append(PlainLayer(recurrence, hidden, norm, 0.0 if last else dropout))
    return Stack(plain, hidden)


def _gated(
    kind: type[LRU | LinOSS | MinGRU], inputs: int, hidden: int, layers: int, dropout: float,
    width: int = 64, norm: str | None = "layer", sparsity: float | None = None, **options: Any,
) -> Stack:  # fmt: skip
    sparse, features = sparsity is not None, width
    if kind is MinGRU:  # the others project back
        features, options = hidden, {**options, "candidate_bias": not sparse}
    # A norm of a single feature's embedding would leave nothing but the sign.
    blocks = [
        GatedBlock(
            width, kind(width, hidden, **options), features, norm if index else None, dropout,
            not sparse,
        )
        for index in range(layers)
    ]  # fmt: skip
    return Stack(blocks, width, make_embedding(inputs, width, sparse))


class Peer(NamedTuple):
    """A network to compare with.

    Attributes:
        build: function of input size, units, layers, dropout and options.
        options: names of the options, each a field of the configuration, too.
        gated: whether its recurrence stands in gated blocks, whose features ``width`` are.
        keeps_steps: whether its output has as many steps as its input, and can be read at each.
        recurrent: ends of the names of the parameters that ``recurrent_lr_scale`` is for.
    """

    build: Callable[..., nn.Module]
    options: tuple[str, ...]
    gated: bool = False
    keeps_steps: bool = True
    recurrent: tuple[str, ...] = ()


#: Every network to compare with, by its name.
PEERS = {
    "lstm": Peer(partial(_lstm_or_gru, nn.LSTM, forget_bias=1.0), ("forget_bias", "chrono")),
    "gru": Peer(partial(_lstm_or_gru, nn.GRU), ("chrono",)),
    "indrnn": Peer(
        partial(_plain, IndRNN, norm="batch"), ("norm", "longest_memory"),
        recurrent=("recurrent_weight",),
    ),
    "lru": Peer(
        partial(_gated, LRU),
        ("width", "norm", "sparsity", "shortest_memory", "longest_memory", "shortest_period"),
        True,
        recurrent=("nu_log", "theta_log", "gamma_log"),
    ),
    "linoss": Peer(
        partial(_gated, LinOSS), ("width", "norm", "sparsity"), True,
        recurrent=("stiffness", "time_step"),
    ),
    "mingru": Peer(partial(_gated, MinGRU), ("width", "norm", "sparsity", "chrono"), True),
    "revgru": Peer(partial(_plain, RevGRU), ("most_bits", "chrono")),
    "cornn": Peer(partial(_plain, CoRNN), ("time_step", "stiffness", "damping")),
    "resnet": Peer(ResNet, (), keeps_steps=False),
}  # fmt: skip
