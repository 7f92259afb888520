"""A stack one step at a time, its gated blocks by one operator: :class:`Stepper`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from irevrnn.kernels.observers import observed, sees_modules
from irevrnn.recurrences.compiled_blocks import parameters_of, prepared
from irevrnn.strategies.stack import Stack


class Stepper:
    """A stack made ready for single steps.

    Args:
        owner: the module that the stack is of.
        stack: its modules.

    Attributes:
        fits: whether an operator takes a step: there is one run of gated blocks, and no other
            recurrence.
    """

    def __init__(self, owner: nn.Module, stack: Stack) -> None:
        containers = [m._modules for m in owner.modules() if m._modules]
        self._children = [(modules, [*modules.values()]) for modules in containers]
        compiled = stack.compiled(last_only=False)
        runs = compiled.compiled_blocks
        self.fits = len(runs) == len(compiled.recurrences) == 1
        places = [layer in runs for layer in compiled.layers]
        below = places.index(True) if self.fits else len(places)
        self._below, self._above = compiled.modules[:below], compiled.modules[below + 1 :]
        blocks = [member.block for run in runs for member in run.members]
        self._advance: Any = self._prepared(blocks).step if self.fits else None
        inside = [m for block in blocks for m in block.modules()]
        self._inside = [(m.__dict__, len(m.__dict__)) for m in inside]
        self._dropouts = [block.dropout.__dict__ for block in blocks]
        self._parameters = [
            (m._parameters, name, p) for m in inside for name, p in m._parameters.items()
        ]

    @staticmethod
    def _prepared(blocks: list[Any]) -> Any:
        parameters: list[Any] = []
        for block in blocks:
            values = parameters_of(block)
            parameters += [*values[:4], block.scale, *values[4:]]
        return prepared(blocks, parameters, last=False, sums=[])

    def holds(self) -> bool:
        """Return whether modules, parameters and modes are those of before.

        Values may change: an operator reads the parameters themselves.
        """
        if torch.is_autocast_enabled("cpu") or observed() or sees_modules():
            return False
        for own, length in self._inside:  # loops that every step runs
            if len(own) != length or own["_forward_hooks"] or own["_forward_pre_hooks"]:
                return False
        for own in self._dropouts:
            if own["training"] and own["p"]:
                return False
        for parameters, name, parameter in self._parameters:
            if parameters.get(name) is not parameter:
                return False
        return all([*modules.values()] == children for modules, children in self._children)

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take x, (B, in), a step on from h and c, (L, B, H)."""
        if not self._below and not self._above:  # a call that makes no graph
            return self._advance(x, h, c)
        with torch.no_grad():
            for module in self._below:
                x = module(x)
            x, h, c = self._advance(x, h, c)
            for module in self._above:
                x = module(x)
        return x, h, c


def is_plain(input: Any, hidden: Any) -> bool:
    """Return whether an input and states are tensors of the kind that a :class:`Stepper` takes."""
    if type(hidden) is not tuple or len(hidden) != 2:
        return False
    h, c = hidden
    if not type(input) is type(h) is type(c) is Tensor or not input.is_cpu:
        return False
    return h.dim() == 3 and input.dim() > 0 and len(input) == h.shape[1]
