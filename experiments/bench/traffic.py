"""The bytes that each kernel of the scan must move, counted from first principles.

A kernel that reads every input once and writes every result once moves this much between memory and
chip, and no correct one moves less. What it takes over the bandwidth of a copy bounds its time from
below. Divide by T * B * H for bytes per element: the rest of the shape then drops out for long
sequences.
"""

from __future__ import annotations

import torch

from irevrnn.ops import HALF
from irevrnn.strategies.rules import OF_A_LAYER, SEGMENT


def forward_bytes(
    steps: int, batch: int, hidden: int, couplings: int, dtype: torch.dtype, memory: str | None
) -> int:
    """Bytes that a forward pass reads and writes.

    Args:
        steps, batch, hidden, couplings: T, B, H and R.
        dtype: of the sequence; states are float32 where it is bfloat16 or float16.
        memory: ``"store"``, ``"recompute"``, or None for a pass that holds nothing.

    Raises:
        ValueError: another strategy.
    """
    state = _state_size(dtype)
    sequence = steps * batch * hidden * dtype.itemsize
    states = batch * hidden * state
    weights = (1 + 2 * couplings) * hidden * state
    saved = 0 if memory is None else saved_bytes(steps, batch, hidden, couplings, dtype, memory)
    return 2 * sequence + 4 * states + weights + saved  # z, out; h_0, c_0, h_n, c_n


def backward_bytes(
    steps: int, batch: int, hidden: int, couplings: int, dtype: torch.dtype, memory: str,
    *, sums_apart: bool = True,
) -> int:  # fmt: skip
    """Bytes that a backward pass reads and writes, with upstream gradients of all three outputs.

    Args:
        steps, batch, hidden, couplings, dtype, memory: as in :func:`forward_bytes`.
        sums_apart: whether the gradients of the weights are summed in each lane and written once
            for each, (1 + 2R, B, H), then read to be summed over the batch. On a GPU there is no
            other way without atomics; on a CPU a thread sums over its lanes in the cache.
    """
    state = _state_size(dtype)
    sequence = steps * batch * hidden * dtype.itemsize
    states = batch * hidden * state
    weights = (1 + 2 * couplings) * hidden * state
    partial_sums = 2 * batch * weights if sums_apart else 0
    saved = saved_bytes(steps, batch, hidden, couplings, dtype, memory)
    # Where values are saved in full precision, outputs are among them, and z need not be read.
    read = 0 if memory == "store" and dtype in HALF else sequence
    # grad_out, grad_z, and out or z; h_0, c_0 and the gradients of all states.
    return 2 * sequence + read + 6 * states + 2 * weights + partial_sums + saved


def saved_bytes(
    steps: int, batch: int, hidden: int, couplings: int, dtype: torch.dtype, memory: str
) -> int:
    """Bytes that the kernel holds between the passes, beside the sequence that it holds anyway."""
    if memory not in OF_A_LAYER:
        raise ValueError(f"memory must be one of {', '.join(OF_A_LAYER)}; got {memory!r}")
    half = int(dtype in HALF)  # then h is saved beside c and beside the values
    if memory == "store":
        rows = steps * (2 * couplings + half)
    else:
        rows = (-(-steps // SEGMENT) - 1) * (1 + half)
    return rows * batch * hidden * _state_size(dtype)


def _state_size(dtype: torch.dtype) -> int:
    return 4 if dtype in HALF else dtype.itemsize
