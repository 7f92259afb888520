"""Find out who sees what is computed: which operators may run depends on it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module

#: The types of tensors that no subclass watches.
PLAIN = frozenset((Tensor, nn.Parameter))


def transformed() -> bool:
    """Return whether a transform of ``torch.func`` is active."""
    return torch._C._are_functorch_transforms_active()  # as torch.autograd.Function asks


def traced() -> bool:
    """Return whether PyTorch is recording operators, to compile or export them."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def observed() -> bool:
    """Return whether PyTorch, or a mode such as that of ``make_fx``, has to see each operator."""
    return traced() or _watched()


def _watched() -> bool:
    return transformed() or torch._C._len_torch_dispatch_stack() > 0


class Observers(NamedTuple):
    """Who sees what a pass computes; which operators run depends on it.

    Attributes:
        modes: whether :func:`observed` holds, or a subclass of tensors sees each operator.
        hooks: whether hooks run for every module of the process.
    """

    modes: bool
    hooks: bool


class _Replayed(threading.local):
    """The observers of the pass that this thread computes again, if it does."""

    observers: Observers | None = None


_replayed = _Replayed()


def observers(*tensors: Tensor) -> Observers:
    """Return the observers of this pass over some tensors."""
    return Observers(sees_operators() or any(type(t) not in PLAIN for t in tensors), sees_modules())


# Every step of a stream asks these, so they call little. A compiler does not read the thread's own.
def sees_operators() -> bool:
    """Return whether each operator is observed, or was when the pass ran first."""
    if traced():
        return True
    replayed = _replayed.observers
    return _watched() if replayed is None else replayed.modes


def sees_modules() -> bool:
    """Return whether hooks run for every module, or did when the pass ran first."""
    if traced() or (replayed := _replayed.observers) is None:
        return bool(nn_module._has_any_global_hook())
    return replayed.hooks


@contextmanager
def as_observed(earlier: Observers) -> Iterator[None]:
    """Choose operators as under earlier observers: others would round differently."""
    before, _replayed.observers = _replayed.observers, earlier
    try:
        yield
    finally:
        _replayed.observers = before
