"""Bytes that the kernels of a scan have to move, from first principles.

Counted is what is read or written once for each unit and step. Left out are weights and states, of
which there are some for each sequence, and the bit buffer of fixed-point arithmetic, whose size
depends on the data.
"""

from __future__ import annotations

from irevrnn.memory import SEGMENT
from irevrnn.recurrences import Shape


def element_bytes(direction: str, memory: str, couplings: int, size: int = 4) -> float:
    """Bytes that a kernel moves for each unit and step.

    Args:
        direction: ``"forward"`` reads z and writes h. ``"backward"`` reads h, from which it replays
            and which tells the slope of g, and the arriving gradient, and writes the gradient of z.
            ``"inverse"`` reads z, and writes h and 2R values of f.
        memory: what a forward pass writes beside h, and a backward pass reads: ``"recompute"`` c
            once a segment, ``"store"`` 2R values of f, ``"reversible"`` nothing but the buffer.
        couplings: R.
        size: bytes of a number.
    """
    if direction == "inverse":
        return size * (2 + 2 * couplings)
    held = {"recompute": 1 / SEGMENT, "store": 2 * couplings, "reversible": 0}[memory]
    return size * ({"forward": 2, "backward": 3}[direction] + held)


def scan_bytes(shape: Shape, memory: str, part: str) -> float:
    """Bytes that a float32 scan moves, in its forward pass (``part="forward"``) or in both."""
    directions = {"forward": ["forward"], "both": ["forward", "backward"]}[part]
    per_element = sum(element_bytes(name, memory, shape.couplings) for name in directions)
    return per_element * shape.steps * shape.batch * shape.hidden
