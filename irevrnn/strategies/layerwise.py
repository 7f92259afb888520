"""The strategies ``store`` and ``recompute``: all steps of a module, then the next module."""

from __future__ import annotations

import torch
from torch import Tensor

from irevrnn.recurrences.packing import Steps
from irevrnn.recurrences.protocol import Recurrence, Result, State
from irevrnn.strategies.stack import Stack, run_modules
from irevrnn.strategies.strategy import States, add_bits


def run_layerwise(
    stack: Stack, memory: str, x: Tensor, states: States, steps: Steps, return_sequence: bool
) -> tuple[Tensor, list[State]]:
    """Run a stack over all steps of x, (T, B, in), or (N, in) packed.

    Return the output, (T, B, out) or (N, out), or (B, out) of the last step; the states of every
    recurrence after the last step, the directions of a layer together, and behind them the bits
    that the input chose to forget, a scalar, if it chooses any.
    """
    if stack.reverse and steps.resets is not None:
        raise ValueError(
            "resets must be None with bidirectional=True, which reads whole sequences: give each "
            "that begins anew as one of its own, such as in a PackedSequence"
        )
    finals: list[State] = []
    bits: State = ()
    index = steps.packing.reversal() if stack.reverse and steps.packing is not None else None

    def back(x: Tensor) -> Tensor:
        """Reverse every sequence in time."""
        return x.flip(0) if index is None else x.index_select(0, index)

    def run(recurrence: Recurrence, x: Tensor, backwards: bool = False) -> Result:
        nonlocal bits
        drive = recurrence.drive(x)
        bits = add_bits(bits, recurrence.chosen_bits(drive))
        drive = tuple(map(back, drive)) if backwards else drive
        out, final = recurrence.scan(drive, states[len(finals)], steps, memory)
        finals.append(final)
        return back(out) if backwards else out, final

    def recur(number: int, recurrence: Recurrence, x: Tensor) -> Result:
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
