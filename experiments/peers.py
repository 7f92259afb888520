"""What people use today, as classifiers that train in the same loop: ``nn.LSTM`` and ``nn.GRU``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from experiments.models import check_read, check_read_at, mean_over_time

RECURRENCES: dict[str, type[nn.LSTM] | type[nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}


class PeerClassifier(nn.Module):
    """A stack of LSTM or GRU layers with a readout.

    Args:
        kind: "lstm" or "gru".
        input_size: features of a step.
        num_classes: classes to tell apart.
        hidden_size: units of each layer.
        num_layers: layers in the stack.
        dropout: probability of dropping a unit after a layer, the last one included.
        read: "last" for the last layer's output after the last step; "mean" for its mean over time.
        read_at: read out after so many steps, at each of these, instead of after the last one.

    Shape:
        - input: (batch, seq, input_size)
        - lengths: (batch,) int64, steps of each sequence, if some are filled up at their end
        - output: logits, (batch, num_classes); with ``read_at`` (batch, len(read_at), num_classes)

    Raises:
        ValueError: ``kind`` is neither, or ``read`` unknown.
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
        self.read = check_read(read)
        if kind not in RECURRENCES:
            raise ValueError(f"kind must be one of {', '.join(RECURRENCES)}; got {kind!r}")
        between = dropout if num_layers > 1 else 0.0  # nn.LSTM warns of dropout in a single layer
        self.rnn = RECURRENCES[kind](
            input_size, hidden_size, num_layers, batch_first=True, dropout=between
        )
        if isinstance(self.rnn, nn.LSTM):
            _open_forget_gates(self.rnn)
        self.read_at = check_read_at(read_at, read)
        self.dropout = nn.Dropout(dropout)
        self.readout = nn.Linear(hidden_size, num_classes)

    def forward(self, input: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Classify each sequence from what is read of the last layer's output."""
        output, _ = self.rnn(input)
        if self.read_at is not None:
            steps = torch.tensor(self.read_at, device=output.device) - 1
            return self.readout(self.dropout(output[:, steps]))
        # It looks back only, so what fills up a sequence behind its end does not reach that step.
        if self.read == "mean":
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
