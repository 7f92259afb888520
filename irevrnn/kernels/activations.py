"""The nonlinearities of the cell, each with its derivative written in terms of its output.

So neither the pre-activation nor the coupling's argument has to be saved for backpropagation
(equation ``eq:slope`` of the paper). ``csrc/activations.h`` has the list for C++ and CUDA.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

#: Slope of ``leaky_relu`` for negative input: a power of two, so that exact arithmetic can undo it.
NEGATIVE_SLOPE = 0.25


class Activation(NamedTuple):
    """A nonlinearity ``y = function(x)``.

    Attributes:
        function: of x.
        slope_from_output: the derivative, as a function of y.
        forgotten_bits: bits that it forgets in a step with y < 0 (``relu``: with y = 0), in fixed
            point; None if it has no inverse there (:mod:`irevrnn.recurrences.fixed_point`).
    """

    function: Callable[[Tensor], Tensor]
    slope_from_output: Callable[[Tensor], Tensor]
    forgotten_bits: float | None = None


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(torch.relu, lambda y: (~(y <= 0)).to(y.dtype), 30.0),
    "tanh": Activation(torch.tanh, lambda y: 1 - y * y),
    "sigmoid": Activation(torch.sigmoid, lambda y: y * (1 - y)),
    "leaky_relu": Activation(
        lambda x: torch.where(x > 0, x, NEGATIVE_SLOPE * x),
        lambda y: torch.where(y > 0, 1.0, NEGATIVE_SLOPE).to(y.dtype),
        2.0,
    ),
    "identity": Activation(lambda x: x, torch.ones_like, 0.0),
}


def get_activation(name: str, argument: str = "activation") -> Activation:
    """Look a nonlinearity up by name; a ValueError names the caller's ``argument``."""
    try:
        return ACTIVATIONS[name]
    except (KeyError, TypeError):
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"{argument} must be one of {known}; got {name!r}") from None
