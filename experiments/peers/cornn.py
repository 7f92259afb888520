"""coRNN (Rusch and Mishra, 2021): coupled, damped and driven oscillators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from irevrnn.modules.projection import Projection


class CoRNN(nn.Module):
    r"""A layer of coupled oscillators, in the explicit form of the authors' experiments.

    .. math::
        z_t &= z_{t-1} + \Delta t \left(\tanh(W y_{t-1} + \mathcal{W} z_{t-1} + V x_t + b)
            - \gamma y_{t-1} - \epsilon z_{t-1}\right) \\
        y_t &= y_{t-1} + \Delta t \, z_t

    The steps follow one another, with the backward pass written out: half the time of a loop under
    autograd.

    Args:
        input_size, hidden_size: features of input and output.
        time_step: Delta t.
        stiffness: gamma, the square of the frequency.
        damping: epsilon. The defaults are the authors' for sequential MNIST.

    Shape:
        - input: (T, B, input_size)
        - state: y and z, (B, 2 * hidden_size), or None
        - output: y, (T, B, hidden_size), and the last state
    """

    def __init__(
        self, input_size: int, hidden_size: int,
        time_step: float = 0.042, stiffness: float = 2.7, damping: float = 4.7,
    ) -> None:  # fmt: skip
        super().__init__()
        self.constants = (time_step, stiffness, damping)
        self.projection = Projection(input_size, hidden_size)  # V and b
        self.mixing = nn.Linear(2 * hidden_size, hidden_size, bias=False)  # W and the other W
        # The authors have one linear map of input and states.
        bound = (input_size + 2 * hidden_size) ** -0.5
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return y of every step, and the last state."""
        matrix = self.mixing.weight
        drive = self.projection(x).to(matrix.dtype)
        if state is None:
            state = drive.new_zeros(drive.shape[1], 2 * len(matrix))
        with torch.autocast(x.device.type, enabled=False):  # states stay in full precision
            return _Oscillators.apply(drive, state, matrix, *self.constants)


class _Oscillators(torch.autograd.Function):
    """The recurrence over V x + b, (T, B, H), from y and z (B, 2 H), with their matrix."""

    @staticmethod
    def forward(
        ctx: Any, drive: Tensor, state: Tensor, matrix: Tensor,
        dt: float, gamma: float, epsilon: float,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        hidden = len(matrix)
        states = drive.new_empty(len(drive) + 1, drive.shape[1], 2 * hidden)
        states[0] = state
        ys, zs = states[..., :hidden].unbind(), states[..., hidden:].unbind()
        force = torch.empty_like(drive)
        for t, (drive_t, force_t) in enumerate(zip(drive, force, strict=True)):
            torch.addmm(drive_t, states[t], matrix.t(), out=force_t).tanh_()
            z = torch.mul(zs[t], 1 - dt * epsilon, out=zs[t + 1])
            z.add_(force_t, alpha=dt).add_(ys[t], alpha=-dt * gamma)
            torch.add(ys[t], z, alpha=dt, out=ys[t + 1])
        ctx.save_for_backward(states, force, matrix)
        ctx.constants = dt, gamma, epsilon
        return states[1:, :, :hidden].contiguous(), states[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_state: Tensor) -> tuple[Tensor | None, ...]:
        states, force, matrix = ctx.saved_tensors
        dt, gamma, epsilon = ctx.constants
        both = grad_state.clone()  # gradients of y and z
        y, z = both.chunk(2, dim=1)
        slope = (1 - force.square()).mul_(dt)
        grad_drive = torch.empty_like(force)
        steps = zip(grad.unbind(), slope.unbind(), grad_drive.unbind(), strict=True)
        for grad_t, slope_t, drive_t in reversed(list(steps)):
            y.add_(grad_t)
            z.add_(y, alpha=dt)
            torch.mul(z, slope_t, out=drive_t)
            y.add_(z, alpha=-dt * gamma)
            z.mul_(1 - dt * epsilon)
            both.addmm_(drive_t, matrix)
        grad_matrix = grad_drive.flatten(0, 1).t() @ states[:-1].flatten(0, 1)
        return grad_drive, both, grad_matrix, None, None, None
