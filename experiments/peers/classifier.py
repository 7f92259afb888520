"""A classifier around the LSTM and the GRU of PyTorch, or a convolutional network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from experiments.models import mean_over_time
from experiments.peers.resnet import ResNet
from experiments.train.task import ReadAt


class PeerClassifier(nn.Module):
    """Layers of another kind, with a readout.

    Args:
        layers: :func:`gates_of`, or :class:`ResNet`, to be called with ``input_size`` and all of
            ``options``.
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
        self.dropout = nn.Dropout(dropout)
        self.readout = nn.Linear(hidden_size, num_classes)

    def forward(self, input: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Classify each sequence."""
        return self.readout(self.dropout(self._read(input, lengths)))

    def _read(self, input: Tensor, lengths: Tensor | None) -> Tensor:
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


def gates_of(
    kind: type[nn.LSTM | nn.GRU], inputs: int, *, hidden_size: int, num_layers: int,
    dropout: float, forget_bias: float | None = None,
) -> nn.Module:  # fmt: skip
    """Build PyTorch's LSTM or GRU; ``forget_bias`` is that of the LSTM's forget gates.

    Jozefowicz et al. (2015) take 1. PyTorch draws it around 0, with which an LSTM hardly learns
    over hundreds of steps: that would be a weakened peer.
    """
    # They warn of dropout in a single layer.
    between = dropout if num_layers > 1 else 0.0
    rnn = kind(inputs, hidden_size, num_layers, batch_first=True, dropout=between)
    for layer in range(num_layers if forget_bias is not None else 0):
        for name, value in (("bias_ih", forget_bias), ("bias_hh", 0.0)):  # a sum
            getattr(rnn, f"{name}_l{layer}").data[hidden_size : 2 * hidden_size] = value
    return rnn
