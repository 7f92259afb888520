"""The forms in which a stack takes and returns the states of its recurrences."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from irevrnn.modules.input_checks import check_lists_of_states, check_states
from irevrnn.modules.sequences import SequenceBatch
from irevrnn.recurrences.protocol import State
from irevrnn.recurrences.stateful import StatefulModule
from irevrnn.strategies.stack import Stack
from irevrnn.strategies.strategy import States

#: (h, c): of one block, (B, H) each; or of a stack, (L, B, H) each, or a tuple of L tensors (B, H)
#: each where blocks have different sizes.
Hidden = tuple[Any, Any]


def initial_states(stack: Stack, batch: SequenceBatch, hidden: Any, symbols: str) -> States:
    """Check the initial states and bring them into the order of the rows.

    Args:
        stack: the modules.
        batch: the input.
        hidden: as given; zeros, or what a module chooses, if None. For blocks alone ``(h_0, c_0)``,
            each (L, B, H), or (L, H) without a batch; a sequence of L tensors each, (B, H) or (H,),
            where the blocks have different sizes. If there are other modules, the state of each of
            the L recurrences: (h, c) of a block.
        symbols: the name of L in an error.

    Raises:
        TypeError: ``hidden`` is of another form.
        ValueError: a shape, dtype or device does not fit.
    """
    count = len(stack.recurrences)
    if hidden is None:
        return stack.initial_states(batch.size)
    if len(stack.blocks) == count:
        return _of_blocks(stack, batch, hidden, symbols)
    if not (isinstance(hidden, tuple | list) and len(hidden) == count):
        given = f"{len(hidden)}" if isinstance(hidden, tuple | list) else type(hidden).__name__
        raise TypeError(
            f"hidden must be a tuple of {count} states, one for each recurrence, as they are of "
            f"different kinds; got {given}"
        )
    states: States = []
    for recurrence, own in zip(stack.recurrences, hidden, strict=True):
        if own is None:
            states.append(recurrence.initial_state(batch.size))
        elif isinstance(recurrence, StatefulModule):
            states.append(take_state(recurrence, batch, own))
        else:
            states.append(_of_block(recurrence.width, stack.like, batch, own, ("h_0", "c_0")))
    return states


def take_state(recurrence: StatefulModule, batch: SequenceBatch, state: Any) -> State:
    """Return the tensors of a module's own state, in the order of the rows."""
    tensors = recurrence.flatten(state)
    if batch.packed is None and batch.batched:
        return tensors
    dims = recurrence.batch_dims(tensors, batch.size)
    return tuple(batch.sorted(x, dim) for x, dim in zip(tensors, dims, strict=True))


def give_state(recurrence: StatefulModule, batch: SequenceBatch, state: State) -> Any:
    """Invert :func:`take_state`."""
    if batch.packed is not None or not batch.batched:
        dims = recurrence.batch_dims(state, batch.size)
        state = tuple(batch.restored(x, dim) for x, dim in zip(state, dims, strict=True))
    return recurrence.nest(state)


def final_states(stack: Stack, batch: SequenceBatch, finals: list[State]) -> Any:
    """Return the final states in the form of :func:`initial_states`."""
    if len(stack.blocks) < len(finals):
        return tuple(
            give_state(r, batch, state)
            if isinstance(r, StatefulModule)
            else tuple(map(batch.restored, state))
            for r, state in zip(stack.recurrences, finals, strict=True)
        )
    h_n, c_n = (tuple(map(batch.restored, states)) for states in zip(*finals, strict=True))
    same = all(state.shape == h_n[0].shape for state in h_n)
    return (torch.stack(h_n), torch.stack(c_n)) if same else (h_n, c_n)


def _of_blocks(stack: Stack, batch: SequenceBatch, hidden: Any, symbols: str) -> States:
    sizes = [recurrence.width for recurrence in stack.recurrences]
    if len(set(sizes)) > 1:
        check_lists_of_states(hidden, len(sizes))
        return [
            _of_block(size, stack.like, batch, pair, (f"h_0[{index}]", f"c_0[{index}]"))
            for index, (size, *pair) in enumerate(zip(sizes, *hidden, strict=True))
        ]
    rows = (batch.size,) if batch.batched else ()
    names = f"({symbols}, {'batch, ' if batch.batched else ''}hidden_size)"
    shape = (len(sizes), *rows, sizes[0])
    check_states(hidden, shape, names, stack.like, ("h_0", "c_0"))
    return [
        tuple(batch.sorted(x.to(stack.like.dtype)) for x in pair)
        for pair in zip(*(state.unbind() for state in hidden), strict=True)
    ]


def _of_block(
    size: int, like: Tensor, batch: SequenceBatch, pair: Any, names: tuple[str, str]
) -> State:
    """Check (h, c) of one block, (B, H) each, or (H,) without a batch."""
    rows = (batch.size,) if batch.batched else ()
    symbols = "(batch, hidden_size)" if batch.batched else "(hidden_size,)"
    check_states(pair, (*rows, size), symbols, like, names)
    return tuple(batch.sorted(x.to(like.dtype)) for x in pair)
