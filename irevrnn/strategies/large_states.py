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

    Args:
        module: that computed the states.
        stack: its modules.
        finals: the states of every recurrence after the last step.
    """
    if observed() or module in _warned:
        return
    for recurrence, state in zip(stack.recurrences, finals, strict=True):
        if not (recurrence.full_precision and _have_values(state[0])):
            continue
        sizes = [abs(x.item()) for each in state for x in each.detach().aminmax()]
        large = [size for size in sizes if not size <= LARGE_STATE]  # NaN, too
        if large:
            _warned.add(module)
            warn(f"states of {recurrence.name} {_describe(large[0])}", UserWarning)
            return


def _describe(size: float) -> str:
    if math.isnan(size):
        what = "are NaN: the input or a parameter is NaN, or states have overflowed"
    else:
        what = f"have grown to {size:.1e}, and training may diverge"
    return (
        f"{what}; set norm='layer', call clip_recurrent_weights_() after each step of the "
        "optimizer, use a smaller learning rate, or keep the initial scale of the projections"
    )


def _have_values(states: Tensor) -> bool:
    return type(states) is Tensor and states.is_cpu and states.numel() > 0
