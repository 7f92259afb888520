"""Check what users pass: numbers, tensors, states, inputs and resets.

What PyTorch itself refuses with a clear message is left to it.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from irevrnn.kernels.observers import autocasts


def check_number(name: str, value: float, least: float, below: float | None = None) -> None:
    """Raise a ValueError that names the argument unless ``value`` is within the bounds."""
    if not value >= least or (below is not None and not value < below):
        wanted = f"at least {least:g}" if below is None else f"in [{least:g}, {below:g})"
        raise ValueError(f"{name} must be {wanted}; got {value}")


def check_count(name: str, value: int, least: int) -> None:
    """Raise an error that names the argument unless ``value`` is an int of at least ``least``."""
    if not isinstance(value, int) or value < least:
        kind = ValueError if isinstance(value, int) else TypeError
        raise kind(f"{name} must be an int of at least {least}; got {value!r}")


def check_tensor(name: str, x: Any, dtype: torch.dtype | None = None) -> None:
    """Raise a TypeError unless x is a tensor of ``dtype``; None allows any floating point."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor; got {type(x).__name__}")
    if not x.is_floating_point() if dtype is None else x.dtype != dtype:
        wanted = "a floating-point dtype" if dtype is None else f"dtype {dtype}"
        raise TypeError(f"{name} must be of {wanted}; got {x.dtype}")


def check_kind(name: str, x: Tensor, like: Tensor) -> None:
    """Raise a ValueError unless x has the device and, autocast aside, the dtype of a parameter."""
    if x.device != like.device:
        raise ValueError(f"{name} must be on the parameters' device {like.device}; got {x.device}")
    wide = torch.float64 in (x.dtype, like.dtype)  # which autocast leaves alone
    cast = x.is_floating_point() and not wide and autocasts(x.device.type)
    if x.dtype != like.dtype and not cast:
        embed = "" if x.is_floating_point() else ", or embed tokens first"
        raise ValueError(
            f"{name} must have the dtype of the parameters, {like.dtype}; got {x.dtype}: use "
            f"{name}.to({like.dtype}){embed}"
        )


def check_states(
    hidden: Any, shape: tuple[int, ...], like: Tensor, names: tuple[str, str] = ("h", "c")
) -> None:
    """Raise an error unless ``hidden`` is a pair of tensors of ``shape``, fit for ``like``."""
    check_tuple("hidden", hidden, 2, f"a pair ({names[0]}, {names[1]})")
    for name, state in zip(names, hidden, strict=True):
        check_tensor(name, state)
        if tuple(state.shape) != shape:
            symbols = "(batch, hidden_size)" if len(shape) == 2 else "(hidden_size,)"
            given = tuple(state.shape)
            raise ValueError(f"{name} must have shape {shape} = {symbols}; got {given}")
        check_kind(name, state, like)


def check_tuple(name: str, given: Any, count: int, wanted: str) -> None:
    """Raise a TypeError unless ``given`` is a tuple or list of ``count``; say what is wanted."""
    listed = isinstance(given, tuple | list)
    if not listed or len(given) != count:
        length = f" of {len(given)}" if listed else ""
        raise TypeError(f"{name} must be {wanted}; got {type(given).__name__}{length}")


def check_input(
    input: Any, batch_first: bool, weight: Tensor, tokens: bool, features: int | None
) -> None:
    """Raise an error unless ``input`` is what a stack takes: a tensor or ``PackedSequence``.

    It must have the device and dtype of ``weight``; if it is ``tokens``, it is indices for an
    embedding, which have no dimension of features.
    """
    packed = isinstance(input, PackedSequence)
    x = input.data if packed else input
    if not isinstance(x, Tensor):
        raise TypeError(f"input must be a torch.Tensor or PackedSequence; got {type(x).__name__}")
    if not tokens:
        check_kind("input", x, weight)
    shape, batched = tuple(x.shape), 2 if tokens else 3
    if len(shape) not in ((batched - 1,) if packed else (batched - 1, batched)):
        layout = "batch, seq" if batch_first else "seq, batch"
        feature = "" if tokens else ", feature"
        wanted = f"({layout}{feature}) or (seq{feature})"
        wanted = f"a PackedSequence of rows (N{feature})" if packed else wanted
        raise ValueError(f"input must be {wanted}; got shape {shape}")
    if features is not None and shape[-1] != features:
        wanted = f"{features} features (input_size) in its last dimension"
        raise ValueError(f"input must have {wanted}; got shape {shape}")
    if not packed and shape[1 if batch_first and len(shape) == batched else 0] == 0:
        raise ValueError(f"input must have at least one step; got shape {shape}")


def check_resets(resets: Tensor, shape: tuple[int, ...]) -> None:
    """Raise an error unless ``resets`` are bool of the input's shape without features."""
    check_tensor("resets", resets, torch.bool)
    if (given := tuple(resets.shape)) != shape:
        wanted = f"{shape}, that of the input without its features"
        raise ValueError(f"resets must have shape {wanted}; got shape {given}")


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
        elif value != parameter.default and not isinstance(value, nn.Module):  # with its own text
            shown.append(f"{parameter.name}={value!r}")
    return ", ".join(shown)
