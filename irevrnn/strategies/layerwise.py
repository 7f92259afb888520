"""The strategies ``store`` and ``recompute``: all steps of a module, then the next module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from irevrnn.recurrences.packing import Packing, Steps
from irevrnn.recurrences.protocol import Recurrence, State
from irevrnn.strategies.stack import Stack, run_modules
from irevrnn.strategies.strategy import add_bits


def run_layerwise(
    stack: Stack,
    memory: str,
    x: Tensor,
    states: list[State | None],
    steps: Steps,
    return_sequence: bool,
) -> tuple[Tensor, list[State]]:
    """Run a stack over a sequence.

    Args:
        stack: the modules; its ``reverse`` blocks read each sequence from its end.
        memory: ``store`` or ``recompute``.
        x: (T, B, in), or (N, in) packed.
        states: of every recurrence before the first step; the directions of a layer together.
        steps: all steps.
        return_sequence: whether to return the output of all steps.

    Returns:
        The output, (T, B, out) or (N, out), or (B, out) of the last step; the states of every
        recurrence after the last step, and behind them the bits that the input chose to forget, a
        scalar, if it chooses any.
    """
    finals: list[State] = []
    bits: State = ()
    packing, turned = steps.packing, steps
    index = packing.reversal() if stack.reverse and packing is not None else None

    def back(x: Tensor) -> Tensor:
        """Reverse every sequence in time."""
        return x.flip(0) if index is None else x.index_select(0, index)

    if stack.reverse and steps.resets is not None:
        turned = replace(steps, resets=_turned(steps.resets, back, packing))

    def run(recurrence: Recurrence, x: Tensor, backwards: bool = False) -> tuple[Tensor, State]:
        nonlocal bits
        drive, within = recurrence.drive(x), steps
        bits = add_bits(bits, recurrence.chosen_bits(drive))
        if backwards:
            drive, within = tuple(map(back, drive)), turned
        out, final = recurrence.scan(drive, states[len(finals)], within, memory)
        finals.append(final)
        return back(out) if backwards else out, final

    def recur(number: int, recurrence: Recurrence, x: Tensor) -> tuple[Tensor, State]:
        if not stack.reverse:
            return run(recurrence, x)
        out, (last, *_) = run(stack.recurrences[2 * number], x)
        other, _ = run(stack.recurrences[2 * number + 1], x, backwards=True)
        last = torch.cat([last, other[-1].expand_as(last)], -1)  # not used if packed
        return torch.cat([out, other], -1), (last,)

    # The input is the cheapest tensor to copy: later ones are written in the order of time.
    output = run_modules(stack, x.contiguous(), recur, steps, {}, not return_sequence)
    # A block may return h, whose last step is h_n itself.
    return output if return_sequence else output.clone(), [*finals, bits]


def _turned(resets: Tensor, turn: Callable[[Tensor], Tensor], packing: Packing | None) -> Tensor:
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
