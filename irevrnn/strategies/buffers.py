"""Find modules that write to the input or their buffers: run again, they give other results."""

from __future__ import annotations

from torch import Tensor

from irevrnn.strategies.stack import Stack

#: How often each buffer of each module was written to.
Versions = dict[tuple[int, str], int]
_INPUT = (-1, "input")


def versions_of(stack: Stack, x: Tensor) -> Versions:
    """Return how often the input and each buffer of each module was written to."""
    buffers = {
        (index, name): _version(buffer)
        for index, module in enumerate(stack.modules)
        for name, buffer in module.named_buffers()
    }
    return {_INPUT: _version(x), **buffers}


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version  # which inference tensors do not have


def check_versions(stack: Stack, x: Tensor, memory: str, before: Versions) -> None:
    """Raise a ValueError if a module has written to the input or a buffer since ``before``."""
    for place, version in versions_of(stack, x).items():
        if version == before.get(place):
            continue
        if place == _INPUT:
            raise ValueError(
                f"{stack.name(0)}, or a module above it, changed the input in place, but "
                f"memory={memory!r} needs it again; use memory='recompute', or a module that "
                "does not work in place"
            )
        index, name = place
        raise ValueError(
            f"{stack.name(index)} changes its buffer {name!r} while it runs, but "
            f"memory={memory!r} runs modules again and again, and needs the same "
            "results each time; use memory='recompute', or keep no state in the module"
        )
