"""The forms in which a stack takes and returns the states of its recurrences."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from irevrnn.modules.checks import check_states, check_tuple
from irevrnn.modules.sequences import SequenceBatch
from irevrnn.recurrences.protocol import State
from irevrnn.recurrences.stateful import StatefulModule
from irevrnn.strategies.stack import Stack
from irevrnn.strategies.strategy import States

#: (h, c): of one block, (B, H) each; or of a stack, (L, B, H) each, or a tuple of L tensors (B, H)
#: each where blocks have different sizes.
Hidden = tuple[Any, Any]


def initial_states(stack: Stack, batch: SequenceBatch, hidden: Any) -> States:
    """Check initial states in the form of :class:`irevrnn.IRevStack`, and sort them as the rows."""
    if hidden is None:
        return stack.initial_states(batch.size)
    count = len(stack.recurrences)
    if len(stack.blocks) == count:
        return _of_blocks(stack, batch, hidden)
    kinds = f"a tuple of {count} states, one for each recurrence, as they are of different kinds"
    check_tuple("hidden", hidden, count, kinds)
    states: States = []
    for recurrence, state in zip(stack.recurrences, hidden, strict=True):
        if state is None:
            states.append(recurrence.initial_state(batch.size))
        elif isinstance(recurrence, StatefulModule):
            tensors = recurrence.flatten(state)
            if batch.packed is not None or not batch.batched:
                dims = recurrence.batch_dims(tensors, batch.size)
                tensors = tuple(map(batch.sorted, tensors, dims))
            states.append(tensors)
        else:
            states.append(_of_block(recurrence.width, stack.like, batch, state, ("h_0", "c_0")))
    return states


def final_states(stack: Stack, batch: SequenceBatch, finals: list[State]) -> Any:
    """Return the final states in the form of the initial ones."""
    if len(stack.blocks) < len(finals):
        recurrences = zip(stack.recurrences, finals, strict=True)
        return tuple(_restored(recurrence, batch, state) for recurrence, state in recurrences)
    h_n, c_n = (tuple(map(batch.restored, states)) for states in zip(*finals, strict=True))
    same = all(state.shape == h_n[0].shape for state in h_n)
    return (torch.stack(h_n), torch.stack(c_n)) if same else (h_n, c_n)


def _restored(recurrence: Any, batch: SequenceBatch, state: State) -> Any:
    if not isinstance(recurrence, StatefulModule):
        return tuple(map(batch.restored, state))
    if batch.packed is not None or not batch.batched:
        state = tuple(map(batch.restored, state, recurrence.batch_dims(state, batch.size)))
    return recurrence.nest(state)


def _of_blocks(stack: Stack, batch: SequenceBatch, hidden: Any) -> States:
    sizes = [recurrence.width for recurrence in stack.recurrences]
    if len(set(sizes)) > 1:
        check_tuple("hidden", hidden, 2, "a pair (h_0, c_0)")
        for name, states in zip(("h_0", "c_0"), hidden, strict=True):
            each = "tensors (batch, hidden_size), as the blocks have different sizes"
            check_tuple(name, states, len(sizes), f"a tuple of {len(sizes)} {each}")
        return [
            _of_block(size, stack.like, batch, pair, (f"h_0[{index}]", f"c_0[{index}]"))
            for index, (size, *pair) in enumerate(zip(sizes, *hidden, strict=True))
        ]
    count = "recurrent blocks" if stack.label == "block" else "num_layers"
    count += " * 2" if stack.reverse else ""
    rows = (batch.size,) if batch.batched else ()
    symbols = f"({count}, {'batch, ' if batch.batched else ''}hidden_size)"
    check_states(hidden, (len(sizes), *rows, sizes[0]), symbols, stack.like, ("h_0", "c_0"))
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
