"""The biases that the gates of ``nn.LSTM``, ``nn.GRU`` and minGRU start with."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


@torch.no_grad()
def start_gates(
    rnn: nn.LSTM | nn.GRU, forget_bias: float | None = None, chrono: float | None = None
) -> None:
    """Set the biases of the gates that keep the state, in every layer.

    Args:
        rnn: whose second gate keeps the state: the forget gate of ``nn.LSTM``, the update gate of
            ``nn.GRU``.
        forget_bias: the bias. Jozefowicz et al. (2015) take 1. PyTorch draws it around 0, with
            which an LSTM hardly learns over hundreds of steps: that would be a weakened peer. None
            leaves it.
        chrono: longest dependency, in steps; if given, biases are those of :func:`chrono_biases`
            instead, and the input gate of ``nn.LSTM`` has their negatives.
    """
    hidden = rnn.hidden_size
    for layer in range(rnn.num_layers):
        bias, other = (getattr(rnn, f"bias_{kind}_l{layer}") for kind in ("ih", "hh"))  # a sum
        keep = slice(hidden, 2 * hidden)
        if chrono is not None:
            bias[keep] = chrono_biases(bias[keep], chrono)
            other[keep] = 0.0
            if isinstance(rnn, nn.LSTM):
                bias[:hidden] = -bias[keep]
                other[:hidden] = 0.0
        elif forget_bias is not None:
            bias[keep] = forget_bias
            other[keep] = 0.0


def chrono_biases(like: Tensor, longest: float) -> Tensor:
    """Draw biases log(U(1, T - 1)) of gates that keep the state (Tallec and Ollivier, 2018).

    Args:
        like: a tensor of the shape, dtype and device of the result.
        longest: T, the longest dependency, in steps: at least 2.
    """
    if not 2 <= longest < math.inf:
        raise ValueError(f"chrono must be at least 2 steps; got {longest}")
    return torch.empty_like(like).uniform_(1, longest - 1).log_()
