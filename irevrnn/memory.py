"""What is held between the forward and the backward pass.

Every strategy gives the same gradient and trades memory against recomputation:

- ``store``: every intermediate value, as textbook BPTT does.
- ``recompute``: the output, which the next layer holds anyway, and c once every :data:`SEGMENT`
  steps (equation ``eq:held`` of the paper). The backward pass replays each segment once, by the
  very instructions of the forward pass, so its gradient is that of ``store`` to the last bit.
"""

from __future__ import annotations

#: Steps between two kept cell states under ``recompute``: large enough that c costs little beside
#: the output, small enough that the replayed values of a segment stay in the processor's cache.
SEGMENT = 16

STRATEGIES = ("store", "recompute", "checkpoint", "reversible", "auto")
OF_THE_STACK = ("checkpoint", "reversible")


def check_strategy(memory: str) -> str:
    """Return ``memory`` if it can be used.

    Raises:
        ValueError: for an unknown strategy.
        NotImplementedError: for one that this release does not have yet.
    """
    if memory not in STRATEGIES:
        raise ValueError(f"memory must be one of {', '.join(STRATEGIES)}; got {memory!r}")
    if memory == "auto":
        raise NotImplementedError("memory='auto' is not available yet")
    return memory
