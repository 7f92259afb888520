"""The gated block: :class:`IRevBlock`, with all that is nonlinear outside of its recurrence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irevrnn.modules import initial_values
from irevrnn.modules.block import Block
from irevrnn.modules.checks import check_count, describe_arguments
from irevrnn.modules.dropout import Dropout
from irevrnn.modules.fused import block_input, block_output, can_fuse, has_hooks, norm_arguments
from irevrnn.modules.norm import make_norm, normalize
from irevrnn.modules.projection import Projection

#: Size of the states of fresh oscillators with nonlinear couplings: chaotic where these saturate.
NONLINEAR_SCALE = 0.1


class IRevBlock(Block):
    r"""A gated block around a reversible recurrence, to be stacked by :class:`irevrnn.IRevStack`.

    .. math::
        z_t &= \gamma \odot (W_{in} \, \mathrm{norm}(x_t) + \beta_{in}) \\
        y_t &= x_t + \mathrm{dropout}(\mathrm{GLU}(W_{out} \, \mathrm{GELU}(h_t) + \beta_{out}))

    with h the recurrence over z. It is the block of S4, S5 and LRU (Gu et al., 2022; Smith et al.,
    2023; Orvieto et al., 2023). By default every unit is a damped linear oscillator, which
    ``memory="reversible"`` can run back at the cost of 2 (1 - u) bits a step.

    Args:
        width: features of input and output.
        norm: of the input, as for :class:`irevrnn.IRevRNN`.
        dropout: probability of dropping a feature before the input is added, by
            :class:`irevrnn.Dropout`.
        gate: whether the output projection has a gate (GLU; Dauphin et al., 2017).
        input_gate: whether the input also chooses how much of z is read: clamp(1 + W x, 0, 2)
            times z, which can close for good.
        residual: whether the input is added to the output.
        bias: whether the projections have biases.
        hidden_size, num_couplings, and all other arguments: those of :class:`irevrnn.Block`.

    Attributes:
        norm: the norm.
        input_projection: ``nn.Linear(width, hidden_size)``.
        scale: gamma, (H,). For oscillators it is initialised to sqrt(1 - u^2), which makes all
            states equally large (as in the LRU), or to a tenth of that if their couplings are not
            linear; for other units to (1 - u^2) / 2. Where u = 1, the u in these formulas is that
            of a memory of ``longest_memory`` steps: set it to about the length of the sequences.
        read_gate, angle_gate, decay_gate: projections of the normed input to what the gates are
            made of, or None. The angle is ``angle * 2 sigmoid(angle_gate(x))``, the decay
            ``sigmoid(decay_gate(x))``. Their weights start at 0, so a fresh block turns and forgets
            alike in all steps.
        output_projection: ``nn.Linear(hidden_size, 2 * width)``, or ``width`` without the gate.

    Its use is shown at :class:`irevrnn.IRevStack`.
    """

    def __init__(
        self, width: int, hidden_size: int, num_couplings: int = 1, *,
        activation: str = "identity", coupling_activation: str = "identity",
        norm: str | None = "layer", dropout: float = 0.0, forgets: bool | str = True,
        turns: str = "fixed", input_gate: bool = False, learn_initial_state: bool = False,
        shortest_period: float = initial_values.SHORTEST_PERIOD,
        longest_period: float | None = initial_values.LONGEST_PERIOD,
        longest_memory: float = initial_values.LONGEST_MEMORY,
        gate: bool = True, residual: bool = True, bias: bool = True,
        device: Any = None, dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        check_count("width", width, 1)
        super().__init__(
            hidden_size, num_couplings, activation=activation,
            coupling_activation=coupling_activation, forgets=forgets, turns=turns,
            learn_initial_state=learn_initial_state, shortest_period=shortest_period,
            longest_period=longest_period, longest_memory=longest_memory, device=device,
            dtype=dtype,
        )  # fmt: skip
        factory: Any = {"device": device, "dtype": dtype}
        self.width, self.gate, self.residual, self.bias = width, gate, residual, bias
        self.norm = make_norm(norm, width, **factory)
        self.input_projection = Projection(width, hidden_size, bias, **factory)
        self.scale = nn.Parameter(torch.empty(hidden_size, **factory))
        self.input_gate = input_gate
        self.read_gate = Projection(width, hidden_size, **factory) if input_gate else None
        self.angle_gate = Projection(width, hidden_size, **factory) if turns == "input" else None
        self.decay_gate = Projection(width, hidden_size, **factory) if forgets == "input" else None
        columns = (2 if gate else 1) * width
        self.output_projection = Projection(hidden_size, columns, bias, **factory)
        self.dropout = Dropout(dropout)
        self.reset_recurrence()

    @torch.no_grad()
    def reset_recurrence(self, shortest_memory: float = initial_values.SHORTEST_MEMORY) -> Tensor:
        """Draw the parameters of the recurrence anew, and the scale that depends on them."""
        tau = super().reset_recurrence(shortest_memory)
        forgotten = -torch.expm1(-2 / tau)  # 1 - u^2, also where u is rounded to 1
        oscillates = self.longest_period is not None
        self.scale.copy_(forgotten.sqrt() if oscillates else forgotten / 2)
        if oscillates and self.coupling_activation != "identity":
            self.scale.mul_(NONLINEAR_SCALE)
        bias = getattr(self.input_projection, "bias", None)  # which may be another module
        if bias is not None:  # added up over a memory, a constant would be all that the unit knows
            bias.zero_()
        for gate in (self.read_gate, self.angle_gate, self.decay_gate):
            if gate is not None:  # a fresh block does what one with fixed angles and decays does
                gate.weight.zero_()
                gate.bias.zero_()
        if self.decay_gate is not None:
            self.decay_gate.bias.copy_(-torch.log(torch.expm1(0.5 / tau)))
        return tau

    def usual_decay(self) -> Tensor:
        """Return the decay of a step, (H,), or the one that an input of 0 chooses."""
        if self.decay_gate is None:
            return super().usual_decay()
        return torch.sigmoid(self.decay_gate.bias)

    def project(self, x: Tensor) -> Any:
        """Return the input projection z (..., H) of the input (..., width).

        Behind it come the angles and the decays that the input chooses, (..., H) each.
        """
        gates = self.read_gate, self.angle_gate, self.decay_gate
        if gates == (None, None, None):
            return block_input(self.norm, self.input_projection, self.scale, x)
        x = normalize(self.norm, x)
        z = block_input(nn.Identity(), self.input_projection, self.scale, x)
        read, turn, keep = (None if gate is None else gate(x).to(z.dtype) for gate in gates)
        if read is not None:  # a hard sigmoid, which closes for good, scaled to 1 at the start
            z = z * torch.clamp(1 + read, 0, 2)
        angle = () if turn is None else (self.angle * (2 * torch.sigmoid(turn)),)
        decay = () if keep is None else (torch.sigmoid(keep),)
        return (z, *angle, *decay) if angle or decay else z

    @property
    def _drops_nothing(self) -> bool:
        idle = type(self.dropout) is Dropout and not self.dropout.active
        return idle and not has_hooks(self.dropout)

    def can_compile(self) -> bool:
        """Return whether operators for chunks of steps compute what this block would."""
        own, inner, u = self.__dict__, self.input_projection, self.recurrent_weight
        if type(self) is not IRevBlock or "project" in own or "output" in own:
            return False
        gates = [g for g in (self.read_gate, self.angle_gate, self.decay_gate) if g is not None]
        for projection in (inner, *gates):
            if type(projection) is not Projection or "weight" not in projection._parameters:
                return False
        plain = norm_arguments(self.norm, self.width) is not None
        plain = plain and self.gate and self._drops_nothing
        plain = plain and all(p.is_contiguous() for p in self.parameters())
        return plain and can_fuse((u,), self, self.norm, inner, *gates, self.output_projection)

    def output(self, x: Tensor, h: Tensor) -> Tensor:
        if self.gate and self._drops_nothing:
            return block_output(self.output_projection, h, x if self.residual else None)
        outer = self.output_projection
        y = self.dropout(block_output(outer, h, None) if self.gate else outer(F.gelu(h)))
        return x + y if self.residual else y

    def extra_repr(self) -> str:
        return describe_arguments(self, IRevBlock.__init__)
