"""LRU (Orvieto et al., 2023): a linear recurrence with complex, diagonal weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from irevrnn.modules.projection import Projection, linear

#: Shortest time constant, in steps, at the start: r_min = 0.9. From 1 on, few units would have a
#: long one, as half of the ring's area is that of memories below four steps.
SHORTEST_MEMORY = 10.0


class LRU(nn.Module):
    r"""A linear recurrent unit.

    .. math::
        h_t &= \lambda \odot h_{t-1} + e^{\gamma} \odot (B x_t), \quad
        \lambda = \exp(-e^{\nu} + i e^{\theta}) \\
        y_t &= \mathrm{Re}(C h_t) + D \odot x_t

    B is trained as all matrices are. The steps follow one another, with the backward pass written
    out. Our kernels return the real part of a state alone: by two scans, one after the other, a
    layer took a third longer at (784, 100, 64), and a fifth less at (5000, 16, 24).

    Args:
        features: of input and output.
        hidden_size: complex units.
        shortest_memory, longest_memory: time constants tau, in steps. The weights start uniform on
            the ring from r_min = exp(-1 / shortest) to r_max = exp(-1 / longest).
        shortest_period: P, in steps. Phases start uniform from 0 to 2 pi / P.

    Shape:
        - input: (T, B, features)
        - state: (B, hidden_size), complex, or None
        - output: (T, B, features), and the last state
    """

    def __init__(
        self,
        features: int,
        hidden_size: int,
        shortest_memory: float = SHORTEST_MEMORY,
        longest_memory: float = 1000.0,
        shortest_period: float = 6.0,
    ) -> None:
        super().__init__()
        check_ring(shortest_memory, longest_memory, shortest_period)
        lowest, highest = (math.exp(-2 / tau) for tau in (shortest_memory, longest_memory))
        # Uniform in area is uniform in the squared radius. 1 - rand is never 0.
        square = lowest + (highest - lowest) * (1 - torch.rand(hidden_size))
        phase = 2 * math.pi / shortest_period * (1 - torch.rand(hidden_size))
        self.nu_log = nn.Parameter((-0.5 * square.log()).log())
        self.theta_log = nn.Parameter(phase.log())
        self.gamma_log = nn.Parameter(0.5 * (1 - square).log())
        # Real and imaginary parts lie next to one another.
        self.input_matrix = Projection(features, 2 * hidden_size, bias=False)
        self.output_matrix = Projection(2 * hidden_size, features, bias=False)
        self.skip = nn.Parameter(torch.randn(features))
        nn.init.normal_(self.input_matrix.weight, std=(2 * features) ** -0.5)
        nn.init.normal_(self.output_matrix.weight, std=hidden_size**-0.5)

    @property
    def recurrent_weights(self) -> Tensor:
        """Lambda, (H,) complex."""
        return torch.exp(torch.complex(-self.nu_log.exp(), self.theta_log.exp()))

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return y of every step, and the last state."""
        # Scaling B is faster than scaling B x.
        rows = self.gamma_log.exp().repeat_interleave(2).unsqueeze(1) * self.input_matrix.weight
        parts = linear(x, rows, None).to(rows.dtype)  # full precision under autocast
        inputs = torch.view_as_complex(parts.unflatten(-1, (-1, 2)))
        h_0 = torch.zeros_like(inputs[0]) if state is None else state
        h = _Scan.apply(self.recurrent_weights, inputs, h_0)
        # Re(C h), with -Im(C) as the weights of the imaginary parts.
        y = self.output_matrix(torch.view_as_real(h).flatten(-2))
        return torch.addcmul(y, self.skip, x), h[-1]


class _Scan(torch.autograd.Function):
    """h of every step, (T, B, H) complex: h_t = weights h_{t-1} + x_t."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, x: Tensor, h_0: Tensor) -> Tensor:
        out, h = torch.empty_like(x), h_0
        for x_t, out_t in zip(x, out, strict=True):
            h = torch.addcmul(x_t, weights, h, out=out_t)
        ctx.save_for_backward(weights, h_0, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weights, h_0, out = ctx.saved_tensors
        weights = weights.conj().resolve_conj()  # as gradients of complex numbers are in PyTorch
        grads, after = torch.empty_like(out), torch.zeros_like(h_0)
        for grad_t, grads_t in reversed([*zip(grad.unbind(), grads.unbind(), strict=True)]):
            after = torch.addcmul(grad_t, weights, after, out=grads_t)
        of_weights = (grads[0] * h_0.conj()).sum(0) + (grads[1:] * out[:-1].conj()).sum((0, 1))
        return of_weights, grads, weights * after


def check_ring(shortest_memory: float, longest_memory: float, shortest_period: float = 1.0) -> None:
    """Raise a ValueError unless weights can start on this ring."""
    if not 0 < shortest_memory < longest_memory < math.inf:
        raise ValueError(
            "shortest_memory must be above 0 and below longest_memory, "
            f"{longest_memory:g} steps; got {shortest_memory}"
        )
    if not 1 <= shortest_period < math.inf:
        raise ValueError(f"shortest_period must be at least 1 step; got {shortest_period}")
