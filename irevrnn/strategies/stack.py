"""The stack of modules that every strategy runs, and how a pass goes through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from itertools import chain, groupby
from typing import Any

import torch
from torch import Tensor, nn

from irevrnn.recurrences.block import BlockRecurrence
from irevrnn.recurrences.compiled_blocks import CompiledBlocks, form_of
from irevrnn.recurrences.packing import Steps
from irevrnn.recurrences.protocol import Recurrence, Result, State, check_result
from irevrnn.recurrences.stateful import StatefulModule, is_stateful
from irevrnn.strategies.dropout_masks import Masks, Seen, current, passes
from irevrnn.strategies.rules import has_batch_statistics


def is_block(module: nn.Module) -> bool:
    """Return whether a module is an :class:`irevrnn.Block`, or looks like one."""
    return hasattr(module, "recurrent_weight")


def recurrence_of(module: Any, name: str) -> Recurrence | None:
    """Return the recurrence of a module of a stack; None for a function of each step by itself.

    A module may bring its own, by a method ``as_recurrence(name)``.
    """
    if is_block(module):
        return BlockRecurrence(module, name)
    if hasattr(module, "as_recurrence"):
        return module.as_recurrence(name)
    return StatefulModule(module, name) if is_stateful(module) else None


class Stack:
    """Modules, stacked on one another.

    Args:
        modules: from the bottom up: recurrences, and functions of a step.
        reverse: for each of them the block that reads sequences from their end, if there are any.
        label: what an error calls one of them: "layer" or "block"; "rnn" for a single network.

    Attributes:
        names: what an error calls each module; those of layers are all of one class.
        layers: the recurrence of each module; None for functions of a step.
        recurrences: those of all directions, in the order of the states: a layer's together.
    """

    def __init__(
        self, modules: Sequence[nn.Module], reverse: Sequence[nn.Module] = (), label: str = "block"
    ) -> None:
        self.modules, self.reverse, self.label = modules, reverse, label
        kinds = ["" if label == "layer" else f" ({type(module).__name__})" for module in modules]
        self.names = [f"{label} {index}{kind}" for index, kind in enumerate(kinds)]
        find = StatefulModule if label == "rnn" else recurrence_of
        self.layers: list[Any] = [*map(find, modules, self.names)]
        turned = [*map(recurrence_of, reverse, self.names)]
        both = zip(self.layers, turned, strict=True) if turned else ((x,) for x in self.layers)
        self.recurrences = [layer for each in both for layer in each if layer is not None]
        self._last_is_enough: bool | None = None

    @property
    def top(self) -> int:
        """The place of the highest recurrence."""
        return max(i for i, layer in enumerate(self.layers) if layer is not None)

    @property
    def last_is_enough(self) -> bool:
        """Whether what is above the recurrences needs the last step alone to give the last.

        Batch statistics are those of all steps, here too.
        """
        if self._last_is_enough is None:  # torch.compile does not know functools.cached_property
            self._last_is_enough = not any(map(has_batch_statistics, self.modules[self.top :]))
        return self._last_is_enough

    @property
    def compiles(self) -> bool:
        """Whether operators take all recurrences through a chunk at once."""
        return all(form_of(recurrence) is not None for recurrence in self.recurrences)

    def compiled(self, last_only: bool) -> Stack:
        """Return the stack of one direction, in which gated blocks run together where they can.

        ``last_only`` tells whether the output of the last step is enough.
        """
        stack, last_only = copy(self), last_only and self.last_is_enough
        parts: list[tuple[nn.Module, str, Any]] = []
        triples = zip(self.modules, self.names, self.layers, strict=True)
        for form, group in groupby(triples, lambda triple: form_of(triple[2])):
            members = [*group]
            if form is not None:
                modules, names, layers = zip(*members, strict=True)
                blocks = CompiledBlocks(layers, last_only and layers[-1] is self.layers[self.top])
                members = [(nn.ModuleList(modules), names[-1], blocks)]
            parts += members
        stack.modules, stack.names, stack.layers = map(list, zip(*parts, strict=True))
        stack.recurrences = [layer for layer in stack.layers if layer is not None]
        return stack

    @property
    def compiled_blocks(self) -> list[CompiledBlocks]:
        """The recurrences of blocks that run together."""
        return [r for r in self.recurrences if isinstance(r, CompiledBlocks)]

    def pack(self, states: list[State | None]) -> list[State | None]:
        """Return the state of each recurrence, given those of the blocks one by one."""
        one: Any = iter(states)
        return [
            r.pack([next(one) for _ in r.members]) if isinstance(r, CompiledBlocks) else next(one)
            for r in self.recurrences
        ]

    def unpack(self, states: list[State]) -> list[State]:
        """Invert :meth:`pack`; states behind those of the recurrences stay as they are."""
        one: Any = iter(states)
        found = list[State]()
        for r in self.recurrences:
            found += r.unpack(next(one)) if isinstance(r, CompiledBlocks) else [next(one)]
        return [*found, *one]

    @property
    def blocks(self) -> list[Any]:
        """The modules with oscillators, in the order of the states."""
        return [r.block for r in self.recurrences if isinstance(r, BlockRecurrence)]

    @property
    def like(self) -> Tensor:
        """A tensor of the device and dtype of the parameters."""
        tensors = (x for m in self.modules for x in chain(m.parameters(), m.buffers()))
        return next((x for x in tensors if x.is_floating_point()), torch.empty(0))

    def initial_states(self, batch: int) -> list[State | None]:
        """Return the states before the first step."""
        return [recurrence.initial_state(batch) for recurrence in self.recurrences]


#: Runs a recurrence, given its number and its input; returns h of every row, and the last state.
Recur = Callable[[int, Recurrence, Tensor], Result]


def run_modules(
    stack: Stack, x: Tensor, recur: Recur, steps: Steps, masks: Masks, last_only: bool
) -> Tensor:
    """Take some steps through all modules of a stack.

    x is (T, B, in), or (N, in) packed; for an embedding, with in = 1. Return (T, B, out) or (N,
    out); with ``last_only`` the last output (E, out) of each of the E sequences that end here.
    """
    packing, watched = steps.packing, not torch.compiler.is_compiling()
    before, seen = current.seen if watched else None, Seen(masks, steps)
    last_alone = last_only and packing is None and stack.last_is_enough
    number, top = 0, stack.top
    try:
        if watched:
            current.seen = seen
            passes.running += 1
        for index, (module, layer) in enumerate(zip(stack.modules, stack.layers, strict=True)):
            rows = x.shape[:-1]
            if layer is None:
                x = module(x.squeeze(-1) if index == 0 and reads_tokens(module) else x)
            else:
                h, state = recur(number, layer, x)
                number += 1
                if index == top and last_alone:
                    x, h = x[-1:], layer.last(h, state).unsqueeze(0)
                    seen.last = True
                    rows = x.shape[:-1]
                x = layer.output(x, h)
            if stack.label != "rnn":  # whose output may have any dimensions
                check_result(stack.names[index], "output", x, rows)
    finally:  # without a call, at which an interrupt could come first
        if watched:
            current.seen = before
            passes.running -= 1
    if not last_only:
        return x
    return x[-1] if packing is None else x[packing.last_rows]


def reads_tokens(module: nn.Module) -> bool:
    """Return whether a module is an ``nn.Embedding``, compiled or not, or begins with one."""
    module = getattr(module, "_orig_mod", module)
    if type(module) is nn.Sequential and len(module):
        return reads_tokens(module[0])
    return isinstance(module, nn.Embedding)
