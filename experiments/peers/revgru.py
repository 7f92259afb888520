"""The reversible GRU (MacKay et al., 2018), trained with every state stored."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from experiments.peers.gates import chrono_biases
from irevrnn.modules.projection import Projection


class RevGRU(nn.Module):
    r"""Two halves of a state, each a GRU that is driven by the other.

    .. math::
        z_t, r_t &= \sigma(W [x_t, \bar h] + b), \quad g_t = \tanh(U [x_t, r_t \odot \bar h] + d) \\
        h_t &= z_t \odot h_{t-1} + (1 - z_t) \odot g_t

    where :math:`\bar h` is the other half: for the first half, the second of the step before; for
    the second, the first of this step. The gate is bounded from below, :math:`z_t > 2^{-k}`, so
    that a unit forgets at most k bits in a step. The steps follow one another, with the backward
    pass written out.

    Args:
        input_size, hidden_size: features of input and output, of which the first half has one more
            if they are odd.
        most_bits: k; None sets no bound.
        chrono: longest dependency, in steps, of biases of z that are those of
            :func:`experiments.peers.gates.chrono_biases`; None starts at random.

    Shape:
        - input: (T, B, input_size)
        - state: both halves, (B, hidden_size), or None
        - output: both halves of every step, (T, B, hidden_size), and the last state
    """

    def __init__(
        self, input_size: int, hidden_size: int,
        most_bits: float | None = None, chrono: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        second = hidden_size // 2
        self.sizes = sizes = (hidden_size - second, second)
        if not second:
            raise ValueError(f"hidden_size must be at least 2, for two halves; got {hidden_size}")
        self.least = 0.0 if most_bits is None else 2.0**-most_bits
        pairs = (sizes, sizes[::-1])  # the units of a half, and of the other
        self.projection = Projection(input_size, 3 * hidden_size)  # z, r and g of either half
        self.gates = nn.ModuleList(nn.Linear(o, n + o, bias=False) for n, o in pairs)
        self.candidates = nn.ModuleList(nn.Linear(o, n, bias=False) for n, o in pairs)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden_size**-0.5), hidden_size**-0.5)
        if chrono is not None:
            parts = self.projection.bias.data.split([*sizes, *sizes, *sizes])
            for bias in (parts[0], parts[3]):  # of z; the others are of r and g
                bias.copy_(chrono_biases(bias, chrono))

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return both halves of the state of every step, and of the last."""
        weights = [each.weight for pair in (self.gates, self.candidates) for each in pair]
        drive = self.projection(x).to(weights[0].dtype)
        if state is None:
            state = drive.new_zeros(drive.shape[1], sum(self.sizes))
        with torch.autocast(x.device.type, enabled=False):  # states stay in full precision
            return _Halves.apply(drive, state, self.sizes, self.least, *weights)


class _Halves(torch.autograd.Function):
    """The recurrence over the projection of z, r and g of both halves, (T, B, 3 H)."""

    @staticmethod
    def forward(
        ctx: Any, drive: Tensor, state: Tensor, sizes: tuple[int, int], least: float,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        hidden = sum(sizes)
        states = drive.new_empty(len(drive) + 1, drive.shape[1], hidden)
        states[0] = state
        halves = states.split(sizes, -1)
        # z and r, then g, of either half: first what drives them, then what they are.
        first, g_first, second, g_second = drive.split([hidden, sizes[0], hidden, sizes[1]], -1)
        gates = [first.clone(), second.clone()]
        candidates = [g_first.clone(), g_second.clone()]
        for t in range(len(drive)):
            for i, other in enumerate((halves[1][t], halves[0][t + 1])):
                both = gates[i][t].addmm_(other, weights[i].t()).sigmoid_()
                z, r = _gates(both, sizes[i], least)
                g = candidates[i][t].addmm_(r * other, weights[2 + i].t()).tanh_()
                torch.lerp(g, halves[i][t], z, out=halves[i][t + 1])
        ctx.save_for_backward(states, *gates, *candidates, *weights)
        ctx.sizes, ctx.least = sizes, least
        return states[1:].clone(), states[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_state: Tensor) -> tuple[Any, ...]:
        states, *saved = ctx.saved_tensors
        gates, candidates, weights = saved[:2], saved[2:4], saved[4:]
        halves, grads = states.split(ctx.sizes, -1), grad.split(ctx.sizes, -1)
        others = halves[1][:-1], halves[0][1:]
        total = [*grad_state.split(ctx.sizes, -1)]
        of_gates, of_candidates = ([torch.empty_like(x) for x in xs] for xs in (gates, candidates))
        for t in reversed(range(len(grad))):
            total = [later + direct[t] for later, direct in zip(total, grads, strict=True)]
            for i in (1, 0):
                both, g, other = gates[i][t], candidates[i][t], others[i][t]
                z, r = _gates(both, ctx.sizes[i], ctx.least)
                torch.mul(total[i] * (1 - z), 1 - g * g, out=of_candidates[i][t])
                product = of_candidates[i][t] @ weights[2 + i]
                of_z = total[i] * (halves[i][t] - g) * (1 - ctx.least)
                of_both = torch.cat([of_z, product * other], -1)
                torch.mul(of_both, both * (1 - both), out=of_gates[i][t])
                total[i] = total[i] * z
                total[1 - i] = total[1 - i] + product * r + of_gates[i][t] @ weights[i]
        of_weights = [_outer(of_gates[i], others[i]) for i in (0, 1)]
        for i in (0, 1):
            _, r = _gates(gates[i], ctx.sizes[i], ctx.least)
            of_weights.append(_outer(of_candidates[i], r * others[i]))
        of_drive = torch.cat([of_gates[0], of_candidates[0], of_gates[1], of_candidates[1]], -1)
        return of_drive, torch.cat(total, -1), None, None, *of_weights


def _gates(both: Tensor, units: int, least: float) -> tuple[Tensor, Tensor]:
    z, r = both[..., :units], both[..., units:]
    return (torch.add(least, z, alpha=1 - least) if least else z), r


def _outer(grads: Tensor, inputs: Tensor) -> Tensor:
    return grads.flatten(0, 1).t() @ inputs.flatten(0, 1)
