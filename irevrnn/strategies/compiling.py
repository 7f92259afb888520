"""What ``torch.compile`` and ``torch.export`` can look into."""

from __future__ import annotations

from irevrnn.strategies.rules import OF_A_LAYER


def opaque(memory: str, packed: bool) -> str | None:
    """Why a forward pass is not a graph, or None if it is one.

    Args:
        memory: the strategy.
        packed: whether sequences have different lengths.
    """
    if memory not in OF_A_LAYER:
        return f"memory={memory!r} runs in Python; memory='store' and memory='recompute' do not"
    if packed:
        return "sequences of different length are packed in Python"
    return None
