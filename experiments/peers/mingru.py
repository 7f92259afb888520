"""minGRU (Feng et al., 2024): a GRU whose gate and candidate do not depend on the state."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.peers.gates import chrono_biases
from experiments.peers.linear_scan import linear_scan
from irevrnn.modules.projection import Projection, linear


class MinGRU(nn.Module):
    r"""A minimal gated recurrent unit, in the form without logarithms.

    .. math::
        z_t &= \sigma(W_z x_t + b_z), \quad \tilde h_t = W_h x_t + b_h \\
        h_t &= (1 - z_t) \odot h_{t-1} + z_t \odot \tilde h_t

    Args:
        features: of the input.
        hidden_size: units.
        chrono: longest dependency, in steps, of biases b_z that are the negatives of
            :func:`experiments.peers.gates.chrono_biases`; None leaves them to ``nn.Linear``.
        candidate_bias: whether there is a b_h.

    Shape:
        - input: (T, B, features)
        - state: (B, hidden_size), or None
        - output: h, (T, B, hidden_size), and the last state
    """

    def __init__(
        self, features: int, hidden_size: int, chrono: float | None = None,
        candidate_bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.projection = Projection(features, 2 * hidden_size)  # of z, and of the candidate
        if not candidate_bias:
            self.projection.bias = nn.Parameter(self.projection.bias.detach()[:hidden_size].clone())
        if chrono is not None:
            with torch.no_grad():
                bias = self.projection.bias[:hidden_size]
                bias.copy_(-chrono_biases(bias, chrono))

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return h of every step, and of the last."""
        # States stay in full precision under autocast.
        weight, bias = self.projection.weight, self.projection.bias
        both = linear(x, weight, F.pad(bias, (0, len(weight) - len(bias)))).to(weight.dtype)
        gate, candidate = both.chunk(2, dim=-1)
        z = torch.sigmoid(gate)
        h = linear_scan(1 - z, z * candidate, state)
        return h, h[-1]
