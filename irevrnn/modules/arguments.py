"""Checks of constructor arguments, and their text in ``repr``."""

from __future__ import annotations

import inspect
import math
import numbers
from typing import Any

from torch import nn


def check_number(name: str, value: float, least: float = -math.inf) -> None:
    """Raise an error that names the argument unless ``value`` is a number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number; got {type(value).__name__}")
    if not value >= least:
        raise ValueError(f"{name} must be at least {least:g}; got {value}")


def check_count(name: str, value: int, least: int) -> None:
    """Raise an error that names the argument unless ``value`` is an int of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int; got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}; got {value}")


def check_probability(name: str, value: float) -> None:
    """Raise an error that names the argument unless ``value`` is a number in [0, 1)."""
    check_number(name, value)
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1); got {value}")


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
        value = getattr(module, parameter.name, parameter.default)
        if isinstance(value, nn.Module):  # which has a text of its own
            continue
        if parameter.default is inspect.Parameter.empty:
            shown.append(f"{value}")
        elif value != parameter.default:
            shown.append(f"{parameter.name}={value!r}")
    return ", ".join(shown)
