"""Warn once when states have grown so large that training may diverge."""

from __future__ import annotations

import math
from weakref import WeakSet

from torch import Tensor, nn

from irevrnn.kernels.jit.build import warn
from irevrnn.kernels.observers import observed
from irevrnn.recurrences.protocol import State
from irevrnn.strategies.stack import Stack

#: Size of a state from which a network is unlikely to train; a fresh one stays of order 1.
LARGE_STATE = 1e4
_warned: WeakSet[nn.Module] = WeakSet()


def warn_of_large_states(module: nn.Module, stack: Stack, finals: list[State]) -> None:
    """Issue a UserWarning, once per module, if a final state exceeds :data:`LARGE_STATE`.

    States on a GPU are not looked at, since that would wait for it, nor are those that have no
    values, while PyTorch records operators or transforms functions.
    """
    if observed() or module in _warned:
        return
    for recurrence, state in zip(stack.recurrences, finals, strict=True):
        plain = type(state[0]) is Tensor and state[0].is_cpu and state[0].numel() > 0
        if not (plain and recurrence.full_precision):
            continue
        sizes = [abs(x.item()) for each in state for x in each.detach().aminmax()]
        if all(size <= LARGE_STATE for size in sizes):
            continue
        size = next(size for size in sizes if not size <= LARGE_STATE)
        what = f"have grown to {size:.1e}, and training may diverge"
        if math.isnan(size):
            what = "are NaN: the input or a parameter is NaN, or states have overflowed"
        _warned.add(module)
        warn(
            f"states of {recurrence.name} {what}; set norm='layer', call clip_recurrent_weights_() "
            "after each step of the optimizer, use a smaller learning rate, or keep the initial "
            "scale of the projections",
            UserWarning,
        )
        return
