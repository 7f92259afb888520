"""The nonlinearities that the cell knows, each with its derivative written in terms of its output.

Backpropagation needs ``f'(x)`` but keeps only ``y = f(x)``; every function here gives its slope
from ``y`` alone, so that neither the pre-activation nor the coupling's argument has to be stored
(equation ``eq:slope`` of the paper). ``csrc/activations.h`` holds the same list for C++ and CUDA.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

#: Slope of ``leaky_relu`` for negative input: a power of two, so that exact arithmetic can undo it.
NEGATIVE_SLOPE = 0.25


class Activation(NamedTuple):
    """A nonlinearity ``y = function(x)`` and its derivative as a function of ``y``."""

    function: Callable[[Tensor], Tensor]
    slope_from_output: Callable[[Tensor], Tensor]


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(torch.relu, lambda y: (~(y <= 0)).to(y.dtype)),
    "tanh": Activation(torch.tanh, lambda y: 1 - y * y),
    "sigmoid": Activation(torch.sigmoid, lambda y: y * (1 - y)),
    "leaky_relu": Activation(
        lambda x: torch.nn.functional.leaky_relu(x, NEGATIVE_SLOPE),
        lambda y: torch.where(y > 0, 1.0, NEGATIVE_SLOPE).to(y.dtype),
    ),
    "identity": Activation(lambda x: x, torch.ones_like),
}


def get_activation(name: str, argument: str = "activation") -> Activation:
    """Look a nonlinearity up by name.

    Args:
        name: one of ``relu``, ``tanh``, ``sigmoid``, ``leaky_relu``, ``identity``.
        argument: the caller's name for it, used in the error.

    Raises:
        ValueError: for an unknown name.
    """
    try:
        return ACTIVATIONS[name]
    except (KeyError, TypeError):
        known = ", ".join(ACTIVATIONS)
        raise ValueError(f"{argument} must be one of {known}; got {name!r}") from None
