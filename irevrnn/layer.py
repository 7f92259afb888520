"""One layer: projection, normalisation and the parameters of the recurrence."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from irevrnn.activations import get_activation
from irevrnn.projection import Projection

#: Shortest time constant, in steps, of freshly drawn recurrent weights.
SHORTEST_MEMORY = 1.0
#: Longest time constant, in steps, unless another is asked for.
LONGEST_MEMORY = 1000.0
#: Standard deviation of freshly drawn coupling weights.
COUPLING_DEVIATION = 1e-3
#: Shortest period, in steps, of units that start as oscillators, unless another is asked for.
SHORTEST_PERIOD = 6.0


@dataclass(frozen=True)
class LayerSpec:
    """The specification of an :class:`IRevRNNLayer`; the arguments are those of ``IRevRNN``.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range.
    """

    input_size: int
    hidden_size: int
    num_couplings: int = 3
    activation: str = "relu"
    coupling_activation: str = "tanh"
    bias: bool = True
    norm: str | None = None
    longest_period: float | None = None
    shortest_period: float = SHORTEST_PERIOD
    longest_memory: float = LONGEST_MEMORY

    def __post_init__(self) -> None:
        check_count("input_size", self.input_size, 1)
        check_count("hidden_size", self.hidden_size, 1)
        check_count("num_couplings", self.num_couplings, 0)
        get_activation(self.activation)
        get_activation(self.coupling_activation, "coupling_activation")
        if self.norm not in (None, "layer", "batch"):
            raise ValueError(f"norm must be None, 'layer' or 'batch'; got {self.norm!r}")
        check_periods(self.shortest_period, self.longest_period, self.num_couplings)
        check_memory(self.longest_memory)


class IRevRNNLayer(nn.Module):
    """One layer of :class:`irevrnn.IRevRNN`: projection, normalisation and recurrence.

    Args:
        spec: sizes, nonlinearities and initial values.
        device, dtype: of the parameters.

    Attributes:
        projection: ``nn.Linear(input_size, hidden_size)``, the only place where units mix.
        norm: ``nn.LayerNorm``, ``nn.BatchNorm1d`` or ``nn.Identity``, applied to the projection.
        recurrent_weight: u, (H,).
        coupling_a, coupling_b: (R, H).
    """

    def __init__(
        self, spec: LayerSpec, device: Any = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.spec = spec
        factory = {"device": device, "dtype": dtype}
        shape = (spec.num_couplings, spec.hidden_size)
        self.projection = Projection(spec.input_size, spec.hidden_size, spec.bias, **factory)
        self.norm = _make_norm(spec, factory)
        self.recurrent_weight = nn.Parameter(torch.empty(spec.hidden_size, **factory))
        self.coupling_a = nn.Parameter(torch.empty(shape, **factory))
        self.coupling_b = nn.Parameter(torch.empty(shape, **factory))
        self.reset_recurrence()

    def reset_parameters(self) -> None:
        """Draw all parameters anew and reset the statistics of ``norm="batch"``."""
        if isinstance(self.norm, nn.LayerNorm | nn.BatchNorm1d):
            self.norm.reset_parameters()
        self.reset_recurrence()

    @torch.no_grad()
    def reset_recurrence(self, shortest: float = SHORTEST_MEMORY) -> None:
        """Draw u = exp(-1/tau), tau log-uniform from ``shortest`` on, couplings and projection.

        A unit adds up 1 / (1 - u) steps of its input projection. Where that starts 1 - u times as
        large, by the rows of the projection or the norm's weight, h is a weighted mean of what
        arrives: of order 1 whatever its memory, the mean and the pace of the input, and the depth.

        Args:
            shortest: the shortest time constant tau, in steps; the longest is ``longest_memory``.
        """
        u = self.recurrent_weight
        tau = _log_uniform_(torch.empty_like(u), shortest, self.spec.longest_memory)
        u.copy_(torch.exp(-1 / tau))
        scale = -torch.expm1(-1 / tau)  # 1 - u, also where u is rounded to 1
        self.projection.reset_parameters()
        if isinstance(self.norm, nn.LayerNorm | nn.BatchNorm1d):
            # Half: nn.Linear makes projections of about that size, of an input of variance 1.
            self.norm.weight.copy_(scale / 2)
        else:
            self.projection.weight.mul_(scale.unsqueeze(1))
            if self.projection.bias is not None:
                self.projection.bias.mul_(scale)
        self._reset_couplings()

    def _reset_couplings(self) -> None:
        """Draw couplings that turn the state (h, c): a and b have opposite signs on the whole.

        With equal signs h and c would drive each other, and grow as exp(sqrt(a b) t).
        """
        a, b = self.coupling_a, self.coupling_b
        a.normal_(0, COUPLING_DEVIATION)
        b.normal_(0, COUPLING_DEVIATION)
        if self.spec.longest_period is not None:
            self._oscillate(self.spec.shortest_period, self.spec.longest_period)
        else:
            b.mul_(torch.where((a.sum(0) > 0) == (b.sum(0) > 0), -1, 1))

    def _oscillate(self, shortest: float, longest: float) -> None:
        """Make each unit an oscillator through its first coupling (equation ``eq:period``)."""
        a, b = self.coupling_a.abs_(), self.coupling_b.abs_().neg_()
        a[0] = 2 * torch.sin(math.pi / _log_uniform_(a[0], shortest, longest))
        b[0] = -a[0]

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised input projection z (..., H) of the input (..., in).

        The recurrence over z belongs to the stack, which decides what to save of it.
        """
        # Under autocast, what sums over steps stays in full precision: the norm and the state.
        z = self.projection(x).to(self.recurrent_weight.dtype)
        if isinstance(self.norm, nn.BatchNorm1d):  # statistics over time and batch, for each unit
            return self.norm(z.flatten(0, -2)).view_as(z)
        return self.norm(z)


def _log_uniform_(x: Tensor, lowest: float, highest: float) -> Tensor:
    return x.uniform_(math.log(lowest), math.log(highest)).exp_()


def _make_norm(spec: LayerSpec, factory: dict[str, Any]) -> nn.Module:
    if spec.norm is None:
        return nn.Identity()
    kind = nn.LayerNorm if spec.norm == "layer" else nn.BatchNorm1d
    return kind(spec.hidden_size, **factory)


def check_periods(shortest: float, longest: float | None, num_couplings: int) -> None:
    """Raise an error unless units can start with periods from ``shortest`` to ``longest``."""
    check_number("shortest_period", shortest)
    if not 2 < shortest < math.inf:
        raise ValueError(f"shortest_period must be above 2 steps; got {shortest}")
    if longest is None:
        return
    check_number("longest_period", longest)
    if not shortest <= longest < math.inf:
        raise ValueError(
            f"longest_period must be at least shortest_period, {shortest:g} steps; got {longest}"
        )
    if num_couplings == 0:
        raise ValueError("longest_period needs num_couplings of at least 1; got 0")


def check_memory(longest: float) -> None:
    """Raise an error unless units can start with a time constant of ``longest`` steps."""
    check_number("longest_memory", longest)
    if not SHORTEST_MEMORY <= longest < math.inf:
        raise ValueError(f"longest_memory must be at least {SHORTEST_MEMORY:g} step; got {longest}")


def check_number(name: str, value: float) -> None:
    """Raise a TypeError that names the argument unless ``value`` is a real number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number; got {type(value).__name__}")


def check_count(name: str, value: int, least: int) -> None:
    """Raise an error that names the argument unless ``value`` is an int of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int; got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}; got {value}")


def describe_arguments(module: nn.Module, constructor: Any) -> str:
    """Return the arguments of a module that differ from their defaults, for its ``extra_repr``.

    Args:
        module: has an attribute for each argument to show.
        constructor: whose signature has the defaults.
    """
    shown = []
    for parameter in inspect.signature(constructor).parameters.values():
        if parameter.name in ("self", "device", "dtype"):
            continue
        value = getattr(module, parameter.name)
        if parameter.default is inspect.Parameter.empty:
            shown.append(f"{value}")
        elif value != parameter.default:
            shown.append(f"{parameter.name}={value!r}")
    return ", ".join(shown)
