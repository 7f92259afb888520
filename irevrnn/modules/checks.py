"""Check what users pass: arguments of constructors, tensors, states, lengths and resets."""

from __future__ import annotations

import inspect
import numbers
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from irevrnn.kernels.observers import autocasts


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


def check_tensor(name: str, x: Any, dtype: torch.dtype | None = None) -> None:
    """Raise a TypeError unless x is a dense tensor of ``dtype``; None allows any floating point."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor; got {type(x).__name__}")
    if not x.is_floating_point() if dtype is None else x.dtype != dtype:
        wanted = "a floating-point dtype" if dtype is None else f"dtype {dtype}"
        raise TypeError(f"{name} must be of {wanted}; got {x.dtype}")
    check_dense(name, x)


def check_dense(name: str, x: Tensor) -> None:
    """Raise a TypeError unless x is dense."""
    if x.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense tensor; got {x.layout}: use {name}.to_dense()")


def check_device(name: str, x: Tensor, device: torch.device, owner: str) -> None:
    """Raise a ValueError unless x is on the device of ``owner``."""
    if x.device != device:
        raise ValueError(f"{name} must be on the device of {owner}, {device}; got {x.device}")


def check_kind(
    name: str, x: Tensor, like: Tensor, owner: str = "the parameters", cast: bool | None = None
) -> None:
    """Raise a ValueError unless x has the device of ``like`` and, unless it is cast, its dtype.

    An error calls ``like`` the ``owner``. If ``cast`` is None, autocast decides.
    """
    check_device(name, x, like.device, owner)
    if x.dtype == like.dtype:
        return
    if cast is None:
        wide = torch.float64 in (x.dtype, like.dtype)  # which autocast leaves alone
        cast = x.is_floating_point() and not wide and autocasts(x.device.type)
    if not cast:
        embed = "" if x.is_floating_point() else ", or embed tokens first"
        raise ValueError(
            f"{name} must have the dtype of {owner}, {like.dtype}; got {x.dtype}: use "
            f"{name}.to({like.dtype}){embed}"
        )


def check_states(
    hidden: Any, shape: tuple[int, ...], symbols: str, like: Tensor, names: tuple[str, str]
) -> None:
    """Raise an error unless ``hidden`` is a pair of tensors of ``shape``, fit for ``like``.

    An error calls the shape ``symbols``, and the states by their ``names``.
    """
    check_tuple("hidden", hidden, 2, f"a pair ({names[0]}, {names[1]})")
    for name, state in zip(names, hidden, strict=True):
        check_tensor(name, state)
        if tuple(state.shape) != shape:
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
    input: Any, batch_first: bool, weight: Tensor, features: int | None, tokens: bool
) -> None:
    """Raise an error unless ``input`` is what a stack takes: a tensor or ``PackedSequence``.

    It must have the device and dtype of ``weight``; if it is ``tokens``, it is indices for an
    embedding, which have no dimension of features.
    """
    packed = isinstance(input, PackedSequence)
    x = input.data if packed else input
    if not isinstance(x, Tensor):
        raise TypeError(f"input must be a torch.Tensor or PackedSequence; got {type(x).__name__}")
    if x.is_nested:
        raise TypeError("input must be a dense tensor; got a nested tensor: pad it, or pack it")
    check_dense("input", x)
    if not tokens:
        check_kind("input", x, weight)
    elif x.dtype in (torch.int64, torch.int32):
        check_device("input", x, weight.device, "the parameters")
    else:
        raise ValueError(
            "input must be of dtype torch.int64 or torch.int32, indices for the embedding in block "
            f"0; got {x.dtype}: use input.long(), or leave out the embedding"
        )
    shape, batched = tuple(x.shape), 2 if tokens else 3
    if len(shape) not in ((batched - 1,) if packed else (batched - 1, batched)):
        end, single = ("", ",") if tokens else (", feature", ", feature")
        layout = "batch, seq" if batch_first else "seq, batch"
        wanted = f"input must be ({layout}{end}) or (seq{single})"
        wanted = f"a PackedSequence must hold data (N{single})" if packed else wanted
        hint = ", indices for the embedding in block 0" if tokens else ""
        raise ValueError(f"{wanted}{hint}; got shape {shape}")
    if not tokens and features is not None and shape[-1] != features:
        raise ValueError(
            f"input must have {features} features in its last dimension; got shape {shape}"
        )
    if not packed and shape[1 if batch_first and len(shape) == batched else 0] == 0:
        raise ValueError(f"input must have at least one step; got shape {shape}")


def check_batch_sizes(batch_sizes: Tensor, rows: int, batch: int | None = None) -> None:
    """Raise an error unless ``batch_sizes`` (T,) describe N packed rows of B sequences."""
    check_tensor("batch_sizes", batch_sizes, torch.int64)
    if batch_sizes.dim() != 1 or not batch_sizes.is_cpu:
        given = f"shape {tuple(batch_sizes.shape)} on {batch_sizes.device}"
        raise ValueError(f"batch_sizes must be (T,), on the CPU; got {given}")
    if torch.compiler.is_compiling():
        return  # the kernel checks the values
    sizes = batch_sizes.tolist()
    most = batch if batch is not None else max(sizes, default=0)
    falls = [most, *sizes] == sorted([most, *sizes], reverse=True)
    if not sizes or not falls or sizes[-1] < 1 or sum(sizes) != rows:
        raise ValueError(
            f"batch_sizes must fall from at most B = {most} to at least 1 and sum to the {rows} "
            f"rows; got {sizes if len(sizes) < 20 else f'{len(sizes)} sizes'}"
        )


def check_resets(resets: Tensor | None, shape: tuple[int, ...], device: torch.device) -> None:
    """Raise an error unless ``resets`` are None, or bool of the input's shape without features."""
    if resets is None:
        return
    check_tensor("resets", resets, torch.bool)
    if (given := tuple(resets.shape)) != shape:
        wanted = f"{shape}, that of the input without its features"
        raise ValueError(f"resets must have shape {wanted}; got shape {given}")
    check_device("resets", resets, device, "the input")


def checked_lengths(lengths: Any, x: Tensor, batched: bool) -> Tensor:
    """Return ``lengths`` as (B,) int64 on the CPU, for x (T, B, ...)."""
    try:
        listed = lengths if isinstance(lengths, Tensor) else list(lengths)
        counts = torch.as_tensor(listed, device="cpu")
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(f"lengths must be integers, (batch,): {error}") from None
    if not batched or x.dim() < 2:
        given = tuple(x.shape)
        raise ValueError(f"lengths go with a batch of padded sequences; got input of shape {given}")
    steps, batch = x.shape[:2]
    if counts.shape != (batch,):
        given = tuple(counts.shape)
        raise ValueError(f"lengths must be ({batch},), one for each sequence; got {given}")
    fractions = counts.is_floating_point() or counts.is_complex()
    if batch and (fractions or counts.dtype == torch.bool):  # an empty list is of float32
        raise TypeError(f"lengths must be integers; got {counts.dtype}")
    counts = counts.to(torch.int64)
    if not all(1 <= count <= steps for count in counts.tolist()):
        raise ValueError(f"lengths must lie between 1 and the {steps} steps; got {counts.tolist()}")
    return counts


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
