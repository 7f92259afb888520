"""What is saved between the forward and the backward pass.

Every strategy trades memory against recomputation. The first two work layer by layer:

- ``store``: every intermediate value, as textbook BPTT does.
- ``recompute``: the output, which the next layer holds anyway, and c once every :data:`SEGMENT`
  steps (equation ``eq:saved`` of the paper). The backward pass replays each segment once, by the
  very instructions of the forward pass, so its gradient is that of ``store`` to the last bit.

The others work on the whole stack, chunk by chunk (:mod:`irevrnn.strategies.chunkwise`), and hold neither z
nor any layer's output:

- ``checkpoint``: h and c of every layer where chunks of about sqrt(T) steps begin; each chunk is
  run once more. Its outputs are those of ``recompute`` to the last bit. Gradients of parameters
  are summed within each chunk, then over the chunks, last chunk first: they differ by the
  rounding of that other order of summation, and in nothing else.
- ``reversible``: the final h and c, and the bits that were forgotten, about -log2 of abs(u) for
  each unit and step (equation ``eq:decay``). States are 64-bit fixed-point numbers and recurrent
  weights are rounded to multiples of 2^-16, within [-1, 1], so its outputs differ from those of
  the others by these roundings; its gradient is that of its own forward pass, with the gradient
  of a rounding taken as 1. Hashes where chunks begin are compared on the way back: if a state is
  not met to the last bit, :class:`irevrnn.ReversalError` is raised and no gradient is
  returned. Activations: ``identity``, ``leaky_relu``, which costs two bits more for each negative
  step, and ``relu``, which costs the whole of what it discards, some 48 bits for each step where
  it is 0.

- ``store_fixed``: the arithmetic of ``reversible`` with every value stored, 2R + 1 numbers for
  each unit and step. Its gradient is that of ``reversible`` to the last bit. It is there to
  show this: nothing else speaks for it.

These take ``norm="batch"`` in evaluation alone, and have no second derivative.

``auto`` picks from ``recompute``, ``checkpoint`` and ``reversible``, in this order, the first that
keeps within ``memory_budget`` (:mod:`irevrnn.strategies.auto`).
"""

from __future__ import annotations

#: Steps between two kept cell states under ``recompute``: large enough that c costs little beside
#: the output, small enough that the replayed values of a segment stay in the processor's cache.
SEGMENT = 16

STRATEGIES = ("store", "recompute", "checkpoint", "reversible", "store_fixed", "auto")
OF_A_LAYER = ("store", "recompute")
OF_THE_STACK = ("checkpoint", "reversible", "store_fixed")
IN_FIXED_POINT = ("reversible", "store_fixed")


def check_strategy(memory: str) -> str:
    """Return ``memory`` if there is such a strategy.

    Raises:
        ValueError: for an unknown one.
    """
    if memory not in STRATEGIES:
        raise ValueError(f"memory must be one of {', '.join(STRATEGIES)}; got {memory!r}")
    return memory
