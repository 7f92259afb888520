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
    recurrences, names = stack.recurrences, ("h_0", "c_0")
    count = len(recurrences)
    if len(stack.blocks) == count:
        check_tuple("hidden", hidden, 2, "a pair (h_0, c_0)")
        for name, states in zip(names, hidden, strict=True):
            if not isinstance(states, Tensor | tuple | list) or len(states) != count:
                given = tuple(getattr(states, "shape", ())) or type(states).__name__
                raise ValueError(
                    f"{name} must hold {count} states, one for each recurrence (twice as many as "
                    f"layers if bidirectional), of shape (batch, hidden_size) each; got {given}"
                )
        hidden = [*zip(*hidden, strict=True)]
    kinds = f"a tuple of {count} states, one for each recurrence, as they are of different kinds"
    check_tuple("hidden", hidden, count, kinds)
    found: States = []
    for index, (recurrence, state) in enumerate(zip(recurrences, hidden, strict=True)):
        if state is None:
            found.append(recurrence.initial_state(batch.size))
        elif isinstance(recurrence, StatefulModule):
            tensors = recurrence.flatten(state)
            if batch.packed is not None or not batch.batched:
                dims = recurrence.batch_dims(tensors, batch.size)
                tensors = tuple(map(batch.sorted, tensors, dims))
            found.append(tensors)
        else:
            shape = (*((batch.size,) if batch.batched else ()), recurrence.width)
            check_states(state, shape, stack.like, (f"h_0[{index}]", f"c_0[{index}]"))
            found.append(tuple(batch.sorted(x.to(stack.like.dtype)) for x in state))
    return found


def final_states(stack: Stack, batch: SequenceBatch, finals: list[State]) -> Any:
    """Return the final states in the form of the initial ones."""
    pairs = zip(stack.recurrences, finals, strict=True)
    found = [_restored(recurrence, batch, state) for recurrence, state in pairs]
    if len(stack.blocks) < len(finals):
        return tuple(found)
    h_n, c_n = zip(*found, strict=True)
    same = all(state.shape == h_n[0].shape for state in h_n)
    return (torch.stack(h_n), torch.stack(c_n)) if same else (h_n, c_n)


def _restored(recurrence: Any, batch: SequenceBatch, state: State) -> Any:
    if not isinstance(recurrence, StatefulModule):
        return tuple(map(batch.restored, state))
    if batch.packed is not None or not batch.batched:
        state = tuple(map(batch.restored, state, recurrence.batch_dims(state, batch.size)))
    return recurrence.nest(state)
