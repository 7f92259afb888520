"""Networks whose input chooses what they forget: minGRU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.peers.gates import chrono_biases
from irevrnn.modules.projection import Projection, linear
from irevrnn.recurrences.selective import Turns


class Selective(nn.Module):
    r"""A linear recurrence whose decays the input chooses, by the kernels of our oscillators.

    .. math:: h_t = d_t \odot h_{t-1} + v_t

    A subclass says in :meth:`choose` what d and v are.

    Args:
        features: of the input.
        hidden_size: units.
        projections: of the input, (T, B, hidden_size) each, that d and v are made of.
        biases: how many of them, from the first on, have a bias.

    Shape:
        - input: (T, B, features)
        - state: (B, hidden_size), or None
        - output: h, (T, B, hidden_size), and the last state
    """

    def __init__(self, features: int, hidden_size: int, projections: int, biases: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.projection = Projection(features, projections * hidden_size)
        bias = self.projection.bias.detach()
        self.projection.bias = nn.Parameter(bias[: biases * hidden_size].clone())

    def choose(self, *projected: Tensor) -> tuple[Tensor, Tensor]:
        """Return d, from 0 to 1, and v of every step."""
        raise NotImplementedError

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return h of every step, and of the last."""
        weight, bias = self.projection.weight, self.projection.bias
        projected = linear(x, weight, F.pad(bias, (0, len(weight) - len(bias))))
        # States stay in full precision under autocast.
        decay, v = self.choose(*projected.to(weight.dtype).split(self.hidden_size, -1))
        rest = v.new_zeros(v.shape[1:])  # the angles, and the part that no input reaches
        h, last, _ = Turns(rest, decay).scan(v, (rest if state is None else state, rest))
        return h, last


class MinGRU(Selective):
    r"""A minimal gated recurrent unit (Feng et al., 2024), in the form without logarithms.

    .. math::
        z_t &= \sigma(W_z x_t + b_z), \quad \tilde h_t = W_h x_t + b_h \\
        h_t &= (1 - z_t) \odot h_{t-1} + z_t \odot \tilde h_t

    Args:
        features, hidden_size: as for :class:`Selective`, and so are the shapes.
        chrono: longest dependency, in steps, of biases b_z that are the negatives of
            :func:`experiments.peers.gates.chrono_biases`; None leaves them to ``nn.Linear``.
        candidate_bias: whether there is a b_h.
    """

    def __init__(
        self, features: int, hidden_size: int, chrono: float | None = None,
        candidate_bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(features, hidden_size, 2, 1 + candidate_bias)
        if chrono is not None:
            bias = self.projection.bias.data[:hidden_size]
            bias.copy_(-chrono_biases(bias, chrono))

    def choose(self, *projected: Tensor) -> tuple[Tensor, Tensor]:
        gate, candidate = projected
        z = torch.sigmoid(gate)
        return 1 - z, z * candidate
