"""Find modules that write to their buffers while they run: run again, they give other results."""

from __future__ import annotations

from irevrnn.strategies.stack import Stack

#: How often each buffer of each module was written to.
Versions = dict[tuple[int, str], int]


def buffer_versions(stack: Stack) -> Versions:
    """Return how often each buffer of each module was written to."""
    return {
        (index, name): buffer._version
        for index, module in enumerate(stack.modules)
        for name, buffer in module.named_buffers()
    }


def check_buffers(stack: Stack, memory: str, before: Versions) -> None:
    """Raise a ValueError if a module has written to a buffer since ``before``."""
    for (index, name), version in buffer_versions(stack).items():
        if version != before.get((index, name)):
            raise ValueError(
                f"{stack.name(index)} changes its buffer {name!r} while it runs, but "
                f"memory={memory!r} runs modules again and again, and needs the same "
                "results each time; use memory='recompute', or keep no state in the module"
            )
