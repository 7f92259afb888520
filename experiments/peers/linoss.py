"""LinOSS (Rusch and Rus, 2025): linear oscillators that forget nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from irevrnn import scan
from irevrnn.modules.projection import Projection, linear


class LinOSS(nn.Module):
    r"""A layer of linear oscillators, in the conservative form of the paper (LinOSS-IMEX).

    .. math::
        z_t &= z_{t-1} + \Delta t \odot (-A \odot y_{t-1} + B x_t), \quad
        A = \mathrm{relu}(\hat A), \quad \Delta t = \sigma(\hat{\Delta}) \\
        y_t &= y_{t-1} + \Delta t \odot z_t \\
        o_t &= \mathrm{Re}(C y_t) + D \odot x_t

    with complex B and C, whose real and imaginary parts drive and read two real oscillators of the
    same A. z is the output of :func:`irevrnn.scan` with u = 1 and one coupling, of weights
    (dt, -dt A); y is dt times that of a second one over z, without couplings.

    Args:
        features: of input and output.
        hidden_size: complex oscillators.

    Shape:
        - input: (T, B, features)
        - state: three times (B, 2 * hidden_size), or None
        - output: (T, B, features), and the last state
    """

    def __init__(self, features: int, hidden_size: int) -> None:
        super().__init__()
        # The values at the start are those of the authors' code.
        self.stiffness = nn.Parameter(torch.rand(hidden_size))  # A before the relu
        self.time_step = nn.Parameter(torch.rand(hidden_size))  # dt before the sigmoid
        # The real parts of all oscillators come first, then the imaginary ones.
        self.input_matrix = Projection(features, 2 * hidden_size, bias=False)
        self.output_matrix = Projection(2 * hidden_size, features, bias=False)
        self.skip = nn.Parameter(torch.randn(features))
        for matrix, size in ((self.input_matrix, features), (self.output_matrix, hidden_size)):
            nn.init.uniform_(matrix.weight, -(size**-0.5), size**-0.5)

    def forward(
        self, x: Tensor, state: tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return o of every step, and the last state."""
        step = torch.sigmoid(self.time_step).repeat(2)
        push = -step * torch.relu(self.stiffness).repeat(2)
        rows = step.unsqueeze(1) * self.input_matrix.weight  # faster than scaling B x
        drive = linear(x, rows, None).to(rows.dtype)  # full precision under autocast
        rest, keep = drive.new_zeros(drive.shape[1:]), torch.ones_like(step)
        h, c, sum_of_z = (rest, rest, rest) if state is None else state
        couplings = step.unsqueeze(0), push.unsqueeze(0)
        z, h, c = scan(drive, h, c, keep, *couplings, "identity", "identity")
        none = couplings[0][:0]
        total, sum_of_z, _ = scan(z, sum_of_z, rest, keep, none, none, "identity")  # as cumsum
        # Re(C y), with -Im(C) as the weights of the imaginary parts.
        y = torch.addcmul(self.output_matrix(step * total), self.skip, x)
        return y, (h, c, sum_of_z)
