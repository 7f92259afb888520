r"""The reversible GRU of MacKay et al. (2018), run back from its last state in integers or floats.

.. math::
    h^1_t = z^1_t \odot h^1_{t-1} + (1 - z^1_t) \odot g^1(x_t, h^2_{t-1}), \quad
    h^2_t = z^2_t \odot h^2_{t-1} + (1 - z^2_t) \odot g^2(x_t, h^1_t)

In integers, a multiplication keeps what it forgets in a buffer (algorithm 1 there); in floats, the
inverse divides, and its rounding errors grow.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

#: Binary places of a state in integers, and of a gate that forgets.
PLACES, GATE_PLACES = 23, 10
_ONE = 2**GATE_PLACES
#: In steps; a gate's places tell longer ones from 1 no more.
LONGEST_MEMORY = 1000.0


class Half(nn.Module):
    """The gates of one half of the units, which read the other half."""

    def __init__(self, features: int, units: int) -> None:
        super().__init__()
        self.gates = nn.Linear(features + units, 2 * units)
        self.candidate = nn.Linear(features + units, units)
        with torch.no_grad():  # chrono initialisation (Tallec and Ollivier, 2018)
            self.gates.bias[:units].uniform_(1, LONGEST_MEMORY - 1).log_()

    def forward(self, x: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """Return what a state is multiplied by, and what is added to it, (B, units) each."""
        z, r = self.gates(torch.cat([x, other], -1)).sigmoid().chunk(2, -1)
        candidate = self.candidate(torch.cat([x, r * other], -1)).tanh()
        # As few binary places in floats, too; the gradient goes straight through.
        z = z + ((z * _ONE).round().clamp(1, _ONE - 1) / _ONE - z).detach()
        return z, (1 - z) * candidate


class FloatState:
    """Half of a state in floats, (B, units), which division takes back but for rounding."""

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def advance(self, z: Tensor, added: Tensor) -> None:
        self.value = self.value * z + added

    def retreat(self, z: Tensor, added: Tensor) -> None:
        self.value = (self.value - added) / z

    def tensors(self) -> list[Tensor]:
        return [self.value]


class IntegerState:
    """The same in integers, with a buffer of what multiplication forgets (algorithm 1)."""

    def __init__(self, value: Tensor) -> None:
        self.integers = (value * 2**PLACES).round().long()
        self.buffer = torch.zeros_like(self.integers)
        #: Full buffers, and the number of the step before which each was put aside.
        self.full: list[tuple[int, Tensor]] = []
        self.step = 0

    @property
    def value(self) -> Tensor:
        return self.integers.float() / 2**PLACES

    def advance(self, z: Tensor, added: Tensor) -> None:
        factor = (z * _ONE).long()
        if self.buffer.max() >= 2 ** (62 - GATE_PLACES):
            self.full.append((self.step, self.buffer))
            self.buffer = torch.zeros_like(self.buffer)
        buffer = self.buffer * _ONE + self.integers % _ONE
        self.integers = (self.integers // _ONE) * factor + buffer % factor
        self.buffer = buffer // factor
        self.integers = self.integers + (added * 2**PLACES).round().long()
        self.step += 1

    def retreat(self, z: Tensor, added: Tensor) -> None:
        factor = (z * _ONE).long()
        self.integers = self.integers - (added * 2**PLACES).round().long()
        buffer = self.buffer * factor + self.integers % factor
        self.integers = (self.integers // factor) * _ONE + buffer % _ONE
        self.buffer = buffer // _ONE
        self.step -= 1
        if self.full and self.full[-1][0] == self.step:
            *self.full, (_, self.buffer) = self.full

    def tensors(self) -> list[Tensor]:
        return [self.integers, self.buffer, *(buffer for _, buffer in self.full)]


State: TypeAlias = FloatState | IntegerState


class RevGRU(nn.Module):
    """Layers of reversible GRUs, trained by running them back step by step.

    Args:
        features: of the input.
        hidden_size: units of a layer, an even number.
        num_layers: layers.
        exact: whether states are integers, whose inverse is exact.

    Shape:
        - input: (B, T, features), which gets no gradient
        - output: of the last step, (B, hidden_size)
    """

    def __init__(
        self, features: int, hidden_size: int, num_layers: int, exact: bool = True
    ) -> None:
        super().__init__()
        self.units, self.exact = hidden_size // 2, exact
        sizes = [features, *[hidden_size] * (num_layers - 1)]
        self.halves = nn.ModuleList(Half(size, self.units) for size in sizes for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the last step."""
        output: Tensor = _RunBack.apply(self, x, *self.parameters())
        return output

    def run(self, x: Tensor, states: Sequence[State]) -> None:
        """Take the states of all halves through a step."""
        for number, state in enumerate(states):
            state.advance(*self._gates(number, x, states))

    def run_back(self, x: Tensor, states: Sequence[State]) -> None:
        """Undo :meth:`run`."""
        for number in reversed(range(len(states))):
            states[number].retreat(*self._gates(number, x, states))

    def _gates(self, number: int, x: Tensor, states: Sequence[State]) -> tuple[Tensor, Tensor]:
        first = number - number % 2  # of the layer
        if first:
            x = torch.cat([state.value for state in states[first - 2 : first]], -1)
        gates: tuple[Tensor, Tensor] = self.halves[number](x, states[number ^ 1].value)
        return gates


class _RunBack(torch.autograd.Function):
    """The last output, whose gradient runs the states back."""

    @staticmethod
    def forward(ctx: Any, model: RevGRU, x: Tensor, *parameters: Tensor) -> Tensor:
        kind, zeros = IntegerState if model.exact else FloatState, x.new_zeros(len(x), model.units)
        ctx.states = [kind(zeros) for _ in model.halves]
        ctx.model, ctx.parameters = model, parameters
        for t in range(x.shape[1]):  # views of all steps would take more memory than the states
            model.run(x[:, t], ctx.states)
        # Saved in PyTorch's way, too, so that its hooks count them.
        ctx.save_for_backward(x, *(t for state in ctx.states for t in state.tensors()))
        return torch.cat([state.value for state in ctx.states[-2:]], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (x, *_), (grad,), states = ctx.saved_tensors, grads, [copy(state) for state in ctx.states]
        upstream = [torch.zeros_like(state.value) for state in states]
        upstream[-2:] = grad.chunk(2, -1)
        totals = [torch.zeros_like(p) for p in ctx.parameters]
        for t in reversed(range(x.shape[1])):
            ctx.model.run_back(x[:, t], states)
            with torch.enable_grad():
                before = [state.value.detach().requires_grad_() for state in states]
                again = [FloatState(value) for value in before]
                ctx.model.run(x[:, t], again)
                after = [state.value for state in again]
                found = torch.autograd.grad(after, [*before, *ctx.parameters], upstream)
            upstream = [*found[: len(before)]]
            for total, part in zip(totals, found[len(before) :], strict=True):
                total += part
        return None, None, *totals
