"""Find modules that change the input or their buffers: run again, they give other results."""

from __future__ import annotations

from torch import Tensor

from irevrnn.strategies.stack import Stack

#: Each buffer of each module, and how often it was written to.
Versions = dict[tuple[int, str], tuple[Tensor, int]]
_INPUT = (-1, "input")


def versions_of(stack: Stack, x: Tensor) -> Versions:
    """Return the input and each buffer of each module, and how often they were written to."""
    buffers = {
        (index, name): (buffer, _version(buffer))
        for index, module in enumerate(stack.modules)
        for name, buffer in module.named_buffers()
    }
    return {_INPUT: (x, _version(x)), **buffers}


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version  # which inference tensors do not have


def check_versions(stack: Stack, x: Tensor, memory: str, before: Versions) -> None:
    """Raise a ValueError if a module has changed the input or a buffer since ``before``."""
    for place, (tensor, version) in versions_of(stack, x).items():
        known, earlier = before.get(place, (None, 0))
        if tensor is known and version == earlier:
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
