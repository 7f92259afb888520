"""LinOSS (Rusch and Rus, 2025): linear oscillators that forget nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from experiments.peers.stack import EVERY, At
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
        - at: an index of the steps at which o is wanted, all by default
        - output: (T, B, features), or as many steps as wanted
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

    def forward(self, x: Tensor, at: At = EVERY) -> Tensor:
        """Return o."""
        step = torch.sigmoid(self.time_step).repeat(2)
        push = -step * torch.relu(self.stiffness).repeat(2)
        rows = step.unsqueeze(1) * self.input_matrix.weight  # faster than scaling B x
        drive = linear(x, rows, None).to(rows.dtype)  # full precision under autocast
        rest, keep = drive.new_zeros(drive.shape[1:]), torch.ones_like(step)
        couplings = step.unsqueeze(0), push.unsqueeze(0)
        z = scan(drive, rest, rest, keep, *couplings, "identity", "identity")[0]
        none = couplings[0][:0]
        total = scan(z, rest, rest, keep, none, none, "identity")[0]  # faster than cumsum
        # Re(C y), with -Im(C) as the weights of the imaginary parts.
        return torch.addcmul(self.output_matrix(step * total[at]), self.skip, x[at])
