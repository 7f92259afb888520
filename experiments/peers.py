"""``nn.LSTM`` and ``nn.GRU`` as classifiers that train in the same loop."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from experiments.models import check_reading, mean_over_time

RECURRENCES: dict[str, type[nn.LSTM] | type[nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}


class PeerClassifier(nn.Module):
    """A stack of LSTM or GRU layers with a readout.

    Args:
        kind: "lstm" or "gru".
        input_size, num_classes, hidden_size, num_layers, dropout, read, read_at: as for
            :class:`experiments.models.SequenceClassifier`, and so are the shapes.
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
    ) -> None:
        super().__init__()
        check_reading(read, read_at)
        self.read, self.read_at = read, read_at
        if kind not in RECURRENCES:
            raise ValueError(f"kind must be one of {', '.join(RECURRENCES)}; got {kind!r}")
        between = dropout if num_layers > 1 else 0.0  # nn.LSTM warns of dropout in a single layer
        self.rnn = RECURRENCES[kind](
            input_size, hidden_size, num_layers, batch_first=True, dropout=between
        )
        if isinstance(self.rnn, nn.LSTM):
            _open_forget_gates(self.rnn)
        self.dropout = nn.Dropout(dropout)
        self.readout = nn.Linear(hidden_size, num_classes)

    def forward(self, input: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Classify each sequence."""
        output, _ = self.rnn(input)
        # The recurrence runs forward only, so padding at the end does not reach the steps read.
        if self.read_at is not None:
            read = output[:, torch.tensor(self.read_at, device=output.device) - 1]
        elif self.read == "mean":
            read = mean_over_time(output, lengths)
        elif lengths is None:
            read = output[:, -1]
        else:
            read = output[torch.arange(len(output)), lengths - 1]
        return self.readout(self.dropout(read))


@torch.no_grad()
def _open_forget_gates(rnn: nn.LSTM) -> None:
    # A bias of 1 (Jozefowicz et al., 2015). PyTorch draws it around 0, with which an LSTM hardly
    # learns over hundreds of steps: that would be a weakened peer.
    gate = slice(rnn.hidden_size, 2 * rnn.hidden_size)  # the order is input, forget, cell, output
    for layer in range(rnn.num_layers):
        getattr(rnn, f"bias_ih_l{layer}")[gate] = 1.0
        getattr(rnn, f"bias_hh_l{layer}")[gate] = 0.0
