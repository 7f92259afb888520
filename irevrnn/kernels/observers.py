"""Find out who sees what is computed: which operators may run depends on it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

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


def exports_to_onnx() -> bool:
    """Return whether PyTorch is recording operators for ONNX."""
    return torch.compiler.is_exporting() and torch.onnx.is_in_onnx_export()


class _Forced(threading.local):
    observed: bool | None = None  # where this thread looks


_forced = _Forced()


@contextmanager
def observed_as(value: bool) -> Iterator[None]:
    """Take for granted whether modes and hooks see what is computed, as in an earlier pass."""
    before, _forced.observed = _forced.observed, value
    try:
        yield
    finally:
        _forced.observed = before


# Every step of a stream asks these, so they call little. A compiler does not read the thread's own.
def observed() -> bool:
    """Return whether PyTorch, or a mode such as that of ``make_fx``, has to see each operator."""
    if traced() or transformed():
        return True
    forced = _forced.observed
    return torch._C._len_torch_dispatch_stack() > 0 if forced is None else forced


def sees_modules() -> bool:
    """Return whether hooks run for every module of the process."""
    if traced() or (forced := _forced.observed) is None:
        return bool(nn_module._has_any_global_hook())
    return forced


def autocasts(device: str) -> bool:
    """Return whether autocast is on for a type of device; some, such as ``meta``, have none."""
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
