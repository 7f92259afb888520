"""Sequence classifiers built on :class:`irevrnn.IRevRNN`."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from irevrnn.layer import SHORTEST_MEMORY, IRevRNNLayer
from irevrnn.rnn import IRevRNN

#: Shortest time constant of the last layer, as a share of the longest, where only its last output
#: is read: units with short memory would know nothing of the sequence there.
READOUT_SHARE = 1 / 20
#: Parts of the last layer's output that can be read: its last step, or the mean of all steps.
READS = ("last", "mean")


class SequenceClassifier(nn.Module):
    """A stack of IRevRNN layers with a readout.

    Args:
        dropout: probability of dropping a unit after a layer, the last one included.
        read: "last" to read the last layer's output after the last step; "mean", its mean over
            time.
        read_at: numbers of steps after which to read it, instead of after the last one. The stack
            runs from one to the next with the states handed on, so that gradients flow through the
            sequence and only the outputs that are read exist; dropout between layers is drawn anew
            for each of these pieces.
        options: passed on to :class:`IRevRNN` (``residual``, ``num_couplings``, ``memory``, ...).

    Shape:
        - input: (batch, seq, input_size)
        - lengths: (batch,) int64, steps of each sequence, if some are padded at their end
        - output: logits, (batch, num_classes); with ``read_at`` (batch, len(read_at), num_classes)
    """

    def __init__(
        self,
        input_size: int,
        num_classes: int,
        hidden_size: int = 128,
        num_layers: int = 6,
        *,
        norm: str | None = "batch",
        dropout: float = 0.0,
        read: str = "last",
        read_at: tuple[int, ...] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        check_reading(read, read_at)
        self.read, self.read_at = read, read_at
        self.rnn = IRevRNN(
            input_size, hidden_size, num_layers,
            norm=norm, dropout=dropout, **options,
        )  # fmt: skip
        if read == "last":
            layer = cast(IRevRNNLayer, self.rnn.layers[-1])
            layer.reset_recurrence(max(SHORTEST_MEMORY, READOUT_SHARE * layer.spec.longest_memory))
        self.norm = nn.BatchNorm1d(hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.readout = nn.Linear(hidden_size, num_classes)

    def forward(self, input: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Classify each sequence."""
        if self.read_at is not None:
            output = _outputs_at(self.rnn, input, self.read_at)
            read = self.dropout(self.norm(output.flatten(0, 1)))
            return self.readout(read).unflatten(0, output.shape[:2])
        output, _ = self.rnn(input, lengths=lengths, return_sequence=self.read == "mean")
        if self.read == "mean":
            output = mean_over_time(output, lengths)
        return self.readout(self.dropout(self.norm(output)))


def check_reading(read: str, read_at: tuple[int, ...] | None) -> None:
    """Raise a ValueError unless a classifier can read its output at these steps."""
    if read not in READS:
        raise ValueError(f"read must be one of {', '.join(READS)}; got {read!r}")
    if read_at is None:
        return
    if read != "last":
        raise ValueError(f"read must be 'last' with read_at; got {read!r}")
    if not read_at or any(end <= start for start, end in zip((0, *read_at), read_at, strict=False)):
        raise ValueError(f"read_at must be rising numbers from 1 on; got {read_at}")


def mean_over_time(output: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the mean of (batch, seq, hidden) over the steps of each sequence, without padding."""
    if lengths is None:
        # A sum's gradient is the same number for each step, which autograd need not write out.
        return output.sum(1) / output.shape[1]
    steps = torch.arange(output.shape[1], device=output.device)
    lengths = lengths.to(output.device).unsqueeze(1)
    return (output * (steps < lengths).unsqueeze(2)).sum(1) / lengths


def _outputs_at(rnn: IRevRNN, input: Tensor, read_at: tuple[int, ...]) -> Tensor:
    """Return the last layer's output at the ends of these pieces, (batch, answers, hidden)."""
    outputs, hidden = [], None
    for start, end in zip((0, *read_at), read_at, strict=False):
        last, hidden = rnn(input[:, start:end], hidden, return_sequence=False)
        outputs.append(last)
    return torch.stack(outputs, dim=1)
