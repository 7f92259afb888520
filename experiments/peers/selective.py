"""Networks whose input chooses what they forget: minGRU, RG-LRU and a diagonal S6."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.peers.lru import SHORTEST_MEMORY, check_ring
from irevrnn.modules.projection import Projection, linear
from irevrnn.recurrences.selective import Turns

#: c, by which the recurrence gate of an RG-LRU multiplies the logarithm of its decay.
GATE_SCALE = 8.0


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
        longest_memory: T, in steps: biases b_z start as -log(U(1, T - 1)), by chrono
            initialisation (Tallec and Ollivier, 2018); None leaves them to ``nn.Linear``.
        candidate_bias: whether there is a b_h.
    """

    def __init__(
        self, features: int, hidden_size: int, longest_memory: float | None = None,
        candidate_bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(features, hidden_size, 2, 1 + candidate_bias)
        if longest_memory is not None:
            bias = self.projection.bias.data[:hidden_size]
            bias.copy_(-torch.empty_like(bias).uniform_(1, longest_memory - 1).log())

    def choose(self, *projected: Tensor) -> tuple[Tensor, Tensor]:
        gate, candidate = projected
        z = torch.sigmoid(gate)
        return 1 - z, z * candidate


class RGLRU(Selective):
    r"""A real-gated linear recurrent unit (De et al., 2024), the recurrence of Griffin.

    .. math::
        r_t &= \sigma(W_r x_t + b_r), \quad i_t = \sigma(W_i x_t + b_i), \quad
        a_t = \sigma(\Lambda)^{c \, r_t}, \quad c = 8 \\
        h_t &= a_t \odot h_{t-1} + \sqrt{1 - a_t^2} \odot (i_t \odot W x_t)

    In Griffin, the gates read what is behind W, and a convolution over four steps lies between.
    Without it, the two matrices in a row would be one, which r and i have here. As in the paper,
    matrices start by LeCun's rule, and the decays of an open gate, :math:`\sigma(\Lambda)^c`,
    uniform from about 0.9 to 0.999. (In the authors' code, :math:`\sigma(\Lambda)` itself does so,
    uniform in its square.)

    Args:
        features, hidden_size: as for :class:`Selective`, and so are the shapes.
        shortest_memory, longest_memory: time constants, in steps, of the least and the largest of
            these decays.
    """

    def __init__(
        self, features: int, hidden_size: int,
        shortest_memory: float = SHORTEST_MEMORY, longest_memory: float = 1000.0,
    ) -> None:  # fmt: skip
        super().__init__(features, hidden_size, 3, 2)
        check_ring(shortest_memory, longest_memory)
        nn.init.normal_(self.projection.weight, std=features**-0.5)
        nn.init.zeros_(self.projection.bias)
        lowest, highest = (math.exp(-1 / tau) for tau in (shortest_memory, longest_memory))
        log = torch.empty(hidden_size).uniform_(lowest, highest).log() / GATE_SCALE
        self.decay_logit = nn.Parameter(log - (-torch.expm1(log)).log())  # Lambda

    def choose(self, *projected: Tensor) -> tuple[Tensor, Tensor]:
        recurrence, opening, value = projected
        log = GATE_SCALE * F.logsigmoid(self.decay_logit) * torch.sigmoid(recurrence)
        # At 0, the slope of a square root is infinite.
        norm = torch.expm1(2 * log).neg().clamp(min=1e-12).sqrt()
        return log.exp(), norm * torch.sigmoid(opening) * value


class S6(Selective):
    r"""A diagonal, real recurrence with the selection of S6 in Mamba (Gu and Dao, 2023).

    .. math::
        \Delta_t &= \mathrm{softplus}(W_\Delta x_t + b_\Delta) \\
        h_t &= \exp(-\Delta_t \odot a) \odot h_{t-1} + \Delta_t \odot W x_t

    It has one state per unit, where Mamba has 16 for each, which the input writes and reads by
    vectors B and C. There are no such vectors here, nor Mamba's convolution: the input chooses the
    step alone, by a matrix of full rank. a starts at 1, as for the first of Mamba's states, and
    steps log-uniform, as in its code.

    Args:
        features, hidden_size: as for :class:`Selective`, and so are the shapes.
        shortest_memory, longest_memory: inverses of the largest and the least step at the start:
            time constants, in steps of the sequence. Those of Mamba are 10 and 1,000.
    """

    def __init__(
        self, features: int, hidden_size: int,
        shortest_memory: float = SHORTEST_MEMORY, longest_memory: float = 1000.0,
    ) -> None:  # fmt: skip
        super().__init__(features, hidden_size, 2, 1)
        check_ring(shortest_memory, longest_memory)
        ends = -math.log(longest_memory), -math.log(shortest_memory)
        step = torch.empty(hidden_size).uniform_(*ends).exp()
        # Softplus gives the step.
        self.projection.bias.data.copy_(step + torch.log(-torch.expm1(-step)))
        self.rate_log = nn.Parameter(torch.zeros(hidden_size))  # of a

    def choose(self, *projected: Tensor) -> tuple[Tensor, Tensor]:
        step = F.softplus(projected[0])
        return torch.exp(step * -self.rate_log.exp()), step * projected[1]
