"""The strategies ``store`` and ``recompute``: all steps of a block, then the next block."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from irevrnn.modules.recurrence import Recurrence, State
from irevrnn.modules.steps import Masks, Steps
from irevrnn.sequences import Packing
from irevrnn.strategies.stack import Stack, project, run_modules


def run_layerwise(
    stack: Stack,
    memory: str,
    x: Tensor,
    states: list[State],
    packing: Packing | None,
    resets: Tensor | None,
    return_sequence: bool,
    masks: Masks | None = None,
) -> tuple[Tensor, list[State]]:
    """Run a stack over a sequence.

    Args:
        stack: the modules; its ``reverse`` blocks read each sequence from its end.
        memory: ``store`` or ``recompute``.
        x: (T, B, in), or (N, in) packed.
        states: h_0 and c_0 of every block, (B, H) each; the directions of a layer together.
        packing: of x, if it is packed.
        resets: (T, B) or (N,), or None.
        return_sequence: whether to return the output of all steps.
        masks: of dropout; drawn if not given.

    Returns:
        The output, (T, B, out) or (N, out), or (B, out) of the last step; h_n and c_n of every
        block.
    """
    finals: list[State] = []
    batch_sizes = None if packing is None else packing.batch_sizes
    back = _reversal(packing) if stack.reverse else _identity
    turned = resets if resets is None or not stack.reverse else _turned(resets, back, packing)

    def run(number: int, block: Any, x: Tensor, turn: Any, resets: Any) -> tuple[Tensor, Tensor]:
        z, state = project(stack, number, block, x), states[len(finals)]
        out, h_n, c_n = Recurrence.of(block).scan(turn(z), state, memory, batch_sizes, resets)
        finals.append((h_n, c_n))
        return turn(out), h_n

    def recur(number: int, block: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        out, h_n = run(number, block, x, _identity, resets)
        if not stack.reverse:
            return out, h_n
        other, _ = run(number, stack.reverse[number], x, back, turned)
        last = torch.cat([h_n, other[-1].expand_as(h_n)], -1)  # not used if packed
        return torch.cat([out, other], -1), last

    # The input is the cheapest tensor to copy: later ones are written in the order of time.
    x = x.contiguous()
    steps = None
    if not torch.compiler.is_compiling():
        length = x.shape[0] if packing is None else len(packing.batch_sizes)
        batch = x.shape[1] if packing is None else int(packing.batch_sizes[0])
        steps = Steps(Masks() if masks is None else masks, 0, length, batch, packing)
    output = run_modules(stack, stack.modules, x, recur, steps, not return_sequence)
    # A block may return h, whose last step is h_n itself.
    return output if return_sequence else output.clone(), finals


def _identity(x: Tensor) -> Tensor:
    return x


def _reversal(packing: Packing | None) -> Any:
    """Return the function that reverses every sequence in time."""
    if packing is None:
        return partial(torch.flip, dims=(0,))
    return partial(torch.index_select, dim=0, index=packing.reversal())


def _turned(resets: Tensor, turn: Any, packing: Packing | None) -> Tensor:
    """Return resets for reading from the end: one before step t is then one before step t - 1."""
    turned = turn(resets)
    if packing is None:
        back = turned.roll(1, 0)
        back[:1] = False
        return back
    back = torch.zeros_like(resets)
    sizes = packing.batch_sizes
    rows = torch.arange(int(sizes[0]), len(back), device="cpu")
    back[rows] = turned[rows - torch.repeat_interleave(sizes[:-1], sizes[1:])]
    return back
