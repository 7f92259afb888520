"""Checks of what a user hands in: tensors, states, lengths and resets."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor


def check_states(
    hidden: Any,
    shape: tuple[int, ...],
    symbols: str,
    like: Tensor,
    names: tuple[str, str],
) -> None:
    """Raise an error unless ``hidden`` is a pair of tensors of ``shape``, fit for ``like``.

    Args:
        hidden: what was given.
        shape: that of each state.
        symbols: what an error calls the shape.
        like: a parameter, or what is computed from it; states must have its dtype and device.
        names: of the states.
    """
    _check_pair(hidden, names)
    for name, state in zip(names, hidden, strict=True):
        if not isinstance(state, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor; got {type(state).__name__}")
        if not state.is_floating_point():
            raise TypeError(f"{name} must be of a floating-point dtype; got {state.dtype}")
        check_dense(name, state)
        if tuple(state.shape) != shape:
            raise ValueError(
                f"{name} must have shape {shape} = {symbols}; got {tuple(state.shape)}"
            )
        _check_kind(name, state, like)


def check_lists_of_states(hidden: Any, count: int) -> None:
    """Raise a TypeError unless ``hidden`` is a pair of ``count`` tensors each."""
    names = ("h_0", "c_0")
    _check_pair(hidden, names)
    for name, states in zip(names, hidden, strict=True):
        listed = isinstance(states, tuple | list)
        if listed and [isinstance(state, Tensor) for state in states] == [True] * count:
            continue
        given = [type(state).__name__ for state in states] if listed else type(states).__name__
        raise TypeError(
            f"{name} must be a tuple of {count} tensors (batch, hidden_size), as the blocks have "
            f"different sizes; got {given}"
        )


def _check_pair(hidden: Any, names: tuple[str, str]) -> None:
    """Raise a TypeError unless ``hidden`` is a pair."""
    if not (isinstance(hidden, tuple | list) and len(hidden) == 2):
        given = type(hidden).__name__
        count = f" of {len(hidden)}" if isinstance(hidden, tuple | list) else ""
        raise TypeError(f"hidden must be a pair ({', '.join(names)}); got {given}{count}")


def check_dense(name: str, x: Tensor) -> None:
    """Raise a TypeError unless x is dense."""
    if x.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense tensor; got {x.layout}: use {name}.to_dense()")


def _check_kind(name: str, x: Tensor, like: Tensor) -> None:
    """Raise a ValueError unless x has the device of ``like`` and, outside autocast, its dtype."""
    if x.device != like.device:
        raise ValueError(
            f"{name} must be on the device of the parameters, {like.device}; got {x.device}"
        )
    if x.dtype == like.dtype:
        return
    device = x.device.type
    if not x.is_floating_point():
        raise ValueError(
            f"{name} must have the dtype of the parameters, {like.dtype}; got {x.dtype}: use "
            f"{name}.to({like.dtype}), or embed tokens first"
        )
    wide = torch.float64 in (x.dtype, like.dtype)  # which autocast leaves alone
    if wide or not autocasts(device):
        raise ValueError(
            f"{name} must have the dtype of the parameters, {like.dtype}; got {x.dtype}: use "
            f"{name}.to({like.dtype})"
        )


def autocasts(device: str) -> bool:
    """Return whether autocast is on for a type of device; some, such as ``meta``, have none."""
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def check_values(x: Tensor, weight: Tensor, tokens: bool = False) -> None:
    """Raise a ValueError unless x has the device and dtype of ``weight``, or are indices of tokens.

    Args:
        x: the input.
        weight: a parameter.
        tokens: whether an embedding reads x.
    """
    if not tokens:
        _check_kind("input", x, weight)
    elif x.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            "input must be of dtype torch.int64 or torch.int32, indices for the embedding in block "
            f"0; got {x.dtype}: use input.long(), or leave out the embedding"
        )
    elif x.device != weight.device:
        raise ValueError(
            f"input must be on the device of the parameters, {weight.device}; got {x.device}"
        )


def check_features(x: Tensor, features: int | None) -> None:
    """Raise a ValueError unless x has the features that are wanted."""
    if features is not None and x.shape[-1] != features:
        raise ValueError(
            f"input must have {features} features in its last dimension; got shape {tuple(x.shape)}"
        )


def check_tensor(
    input: Tensor, batch_first: bool, weight: Tensor, features: int | None, tokens: bool
) -> None:
    """Raise an error unless ``input`` is a tensor that a stack takes.

    See :func:`check_values` and :func:`check_features`; tokens have no dimension of features.
    """
    if not isinstance(input, Tensor):
        raise TypeError(
            f"input must be a torch.Tensor or PackedSequence; got {type(input).__name__}"
        )
    if input.is_nested:
        raise TypeError(
            "input must be a dense tensor or a PackedSequence; got a nested tensor: pad it and "
            "pass lengths, or pack it"
        )
    check_dense("input", input)
    check_values(input, weight, tokens)
    shape, batched = tuple(input.shape), 2 if tokens else 3
    if len(shape) not in (batched - 1, batched):
        layout = "batch, seq" if batch_first else "seq, batch"
        wanted = f"({layout}, feature) or (seq, feature)"
        if tokens:
            wanted = f"({layout}) or (seq,), indices for the embedding in block 0"
        raise ValueError(f"input must be {wanted}; got shape {shape}")
    if not tokens:
        check_features(input, features)
    if shape[1 if batch_first and len(shape) == batched else 0] == 0:
        raise ValueError(f"input must have at least one step; got shape {shape}")


def check_batch_sizes(batch_sizes: Tensor, rows: int, batch: int | None = None) -> None:
    """Raise an error unless ``batch_sizes`` (T,) describe packed sequences.

    Args:
        batch_sizes: the number of sequences that have each step.
        rows: N, what they sum to.
        batch: B, if it is known.
    """
    if not isinstance(batch_sizes, Tensor):
        raise TypeError(f"batch_sizes must be a torch.Tensor; got {type(batch_sizes).__name__}")
    if batch_sizes.dim() != 1 or batch_sizes.dtype != torch.int64 or not batch_sizes.is_cpu:
        raise ValueError(
            "batch_sizes must be (T,), int64 and on the CPU; got shape "
            f"{tuple(batch_sizes.shape)}, {batch_sizes.dtype} on {batch_sizes.device}"
        )
    if torch.compiler.is_compiling():
        return  # the kernel checks the values
    try:
        sizes = batch_sizes.tolist()
    except RuntimeError as error:
        raise ValueError("batch_sizes must be the same for all members of a vmap") from error
    most = batch if batch is not None else max(sizes, default=0)
    falls = all(0 < size <= before for before, size in pairwise([most, *sizes]))
    if not sizes or not falls or sum(sizes) != rows:
        raise ValueError(
            f"batch_sizes must fall from at most B = {most} to at least 1 and sum to the {rows} "
            f"rows; got {sizes if len(sizes) < 20 else f'{len(sizes)} sizes'}"
        )


def check_resets(resets: Tensor | None, shape: tuple[int, ...], device: torch.device) -> None:
    """Raise an error unless ``resets`` say of each step of each sequence whether it begins anew.

    Args:
        resets: bool; None, where none does, is no error.
        shape: that of the input without its features.
        device: that of the input.
    """
    if resets is None:
        return
    if not isinstance(resets, Tensor):
        raise TypeError(f"resets must be a torch.Tensor; got {type(resets).__name__}")
    if resets.dtype != torch.bool:
        raise TypeError(f"resets must be of dtype torch.bool; got {resets.dtype}")
    check_dense("resets", resets)
    if tuple(resets.shape) != shape:
        raise ValueError(
            f"resets must have shape {shape}, that of the input without its features; got shape "
            f"{tuple(resets.shape)}"
        )
    if resets.device != device:
        raise ValueError(
            f"resets must be on the device of the input, {device}; got {resets.device}"
        )


def checked_lengths(lengths: Tensor | Iterable[int], input: Tensor, batch_first: bool) -> Tensor:
    """Return ``lengths`` as (B,) int64 on the CPU."""
    if isinstance(lengths, str) or not isinstance(lengths, Tensor | Iterable):
        raise TypeError(f"lengths must be integers, (batch,); got {type(lengths).__name__}")
    try:
        counts = torch.as_tensor(
            lengths if hasattr(lengths, "__len__") else list(lengths), device="cpu"
        )
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(f"lengths must be integers, (batch,): {error}") from None
    if input.dim() != 3:
        raise ValueError(
            f"lengths go with a batch of padded sequences; got input of shape {tuple(input.shape)}"
        )
    batch, steps = input.shape[:2] if batch_first else (input.shape[1], input.shape[0])
    if counts.shape != (batch,):
        raise ValueError(
            f"lengths must be ({batch},), one for each sequence; got {tuple(counts.shape)}"
        )
    integers = not (counts.is_floating_point() or counts.is_complex() or counts.dtype == torch.bool)
    if not integers and batch:  # an empty list has no integers to tell
        raise TypeError(f"lengths must be integers; got {counts.dtype}")
    counts = counts.to(torch.int64)
    if not bool(((counts >= 1) & (counts <= steps)).all()):
        raise ValueError(f"lengths must lie between 1 and the {steps} steps; got {counts.tolist()}")
    return counts
