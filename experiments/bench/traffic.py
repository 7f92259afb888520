"""The bytes that the scan must move, counted from first principles.

A kernel that reads every input once and writes every result once moves this much between memory and
chip, and no correct one moves less. Over the bandwidth of a copy, that bounds its time from below.
"""

from __future__ import annotations

import torch

from irevrnn.strategies.rules import OF_A_LAYER, SEGMENT


def forward_bytes(
    steps: int, batch: int, hidden: int, couplings: int, dtype: torch.dtype, memory: str | None
) -> int:
    """Count the bytes that a forward pass reads and writes.

    Args:
        steps, batch, hidden, couplings: T, B, H and R.
        dtype: float32 or float64.
        memory: ``"store"``, ``"recompute"``, or None for a pass that saves nothing.
    """
    state = batch * hidden * dtype.itemsize
    weights = (1 + 2 * couplings) * hidden * dtype.itemsize
    saved = saved_by_kernel(steps, batch, hidden, couplings, dtype, memory) if memory else 0
    return 2 * steps * state + 4 * state + weights + saved  # z, out; h_0, c_0, h_n, c_n


def backward_bytes(
    steps: int, batch: int, hidden: int, couplings: int, dtype: torch.dtype, memory: str,
    *, sums_apart: bool = True,
) -> int:  # fmt: skip
    """Count the bytes of a backward pass with upstream gradients of all three outputs.

    Args:
        steps, batch, hidden, couplings, dtype, memory: as in :func:`forward_bytes`.
        sums_apart: whether the gradients of the weights are summed in each lane and written once
            for each, (1 + 2R, B, H), then read to be summed over the batch. On a GPU there is no
            other way without atomics; on a CPU a thread sums over its lanes in the cache.
    """
    state = batch * hidden * dtype.itemsize
    weights = (1 + 2 * couplings) * hidden * dtype.itemsize
    partial_sums = 2 * batch * weights if sums_apart else 0
    saved = saved_by_kernel(steps, batch, hidden, couplings, dtype, memory)
    # grad_out, out and grad_z; h_0, c_0 and the gradients of all states.
    return 3 * steps * state + 6 * state + 2 * weights + partial_sums + saved


def saved_by_kernel(
    steps: int, batch: int, hidden: int, couplings: int, dtype: torch.dtype, memory: str
) -> int:
    """Count the bytes that the kernel saves for the backward pass, beside its output.

    Raises:
        ValueError: ``memory`` is neither ``"store"`` nor ``"recompute"``.
    """
    if memory not in OF_A_LAYER:
        raise ValueError(f"memory must be one of {', '.join(OF_A_LAYER)}; got {memory!r}")
    rows = 2 * couplings * steps if memory == "store" else -(-steps // SEGMENT) - 1
    return rows * batch * hidden * dtype.itemsize
