"""IndRNN (Li et al., 2018): independently recurrent units with relu."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from irevrnn import scan
from irevrnn.modules.checks import check_number
from irevrnn.modules.initial_values import SHORTEST_MEMORY
from irevrnn.modules.projection import Projection

#: The factor by which a state may grow over the longest memory (gamma in the paper); a unit of the
#: last layer starts with no less than the inverse.
GROWTH = 2.0


class IndRNN(nn.Module):
    r"""A layer of IndRNN, computed by :func:`irevrnn.scan` without couplings.

    .. math:: h_t = \mathrm{relu}(W x_t + b + u \odot h_{t-1})

    Args:
        input_size, hidden_size: features of input and output.
        longest_memory: T, the steps that a unit has to remember over. Recurrent weights start
            uniform from 0 to 2^(1/T), the largest that is allowed.
        last: whether it is the last layer, whose weights start from 2^(-1/T) on.

    Input weights start as those of ``nn.Linear``.

    Shape:
        - input: (T, B, input_size)
        - state: (B, hidden_size), or None
        - output: (T, B, hidden_size), and the last state
    """

    def __init__(
        self, input_size: int, hidden_size: int, longest_memory: float = 1000.0, last: bool = False
    ) -> None:
        super().__init__()
        check_number("longest_memory", longest_memory, SHORTEST_MEMORY, math.inf)
        self.projection = Projection(input_size, hidden_size)
        nn.init.zeros_(self.projection.bias)
        self.largest_weight = GROWTH ** (1 / longest_memory)
        weights = torch.empty(hidden_size)
        weights.uniform_(1 / self.largest_weight if last else 0.0, self.largest_weight)
        self.recurrent_weight = nn.Parameter(weights)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return h of every step, and of the last."""
        u = self.recurrent_weight
        z = self.projection(x).to(u.dtype)  # states stay in full precision under autocast
        zeros, couplings = z.new_zeros(z.shape[1:]), z.new_zeros(0, z.shape[2])
        h_0 = zeros if state is None else state
        out, h_n, _ = scan(z, h_0, zeros, u, couplings, couplings, activation="relu")
        return out, h_n

    @torch.no_grad()
    def clip_recurrent_weights_(self) -> None:
        """Bring the recurrent weights back to [-2^(1/T), 2^(1/T)]."""
        self.recurrent_weight.clamp_(-self.largest_weight, self.largest_weight)
