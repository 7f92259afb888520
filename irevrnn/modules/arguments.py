"""Checks of constructor arguments, and their text in ``repr``."""

from __future__ import annotations

import inspect
import numbers
from typing import Any

from torch import nn


def check_number(name: str, value: float, least: float, below: float | None = None) -> None:
    """Raise an error that names the argument unless ``value`` is a number within the bounds."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number; got {type(value).__name__}")
    if not value >= least or (below is not None and not value < below):
        wanted = f"at least {least:g}" if below is None else f"in [{least:g}, {below:g})"
        raise ValueError(f"{name} must be {wanted}; got {value}")


def check_count(name: str, value: int, least: int) -> None:
    """Raise an error that names the argument unless ``value`` is an int of at least ``least``."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int; got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}; got {value}")


def describe_arguments(module: nn.Module, constructor: Any) -> str:
    """Return the arguments of a module that differ from their defaults, for its ``extra_repr``.

    The module has an attribute for each argument of ``constructor`` to show.
    """
    shown = []
    _, *parameters = inspect.signature(constructor).parameters.values()  # without self
    for parameter in parameters:
        value = getattr(module, parameter.name, parameter.default)
        if parameter.default is inspect.Parameter.empty:
            shown.append(f"{value}")
        elif value != parameter.default and not isinstance(value, nn.Module):  # it has its own text
            shown.append(f"{parameter.name}={value!r}")
    return ", ".join(shown)
