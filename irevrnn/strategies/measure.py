"""Measure the memory of a training pass over the first steps of a sequence.

The modules run forward and backward over real values, and each storage that an operator allocates
is followed until it is freed. What an operator allocates and frees by itself is not seen.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from irevrnn.kernels.observers import observed_as
from irevrnn.recurrences.packing import Steps
from irevrnn.strategies.chunk_graph import Gradients, backpropagate
from irevrnn.strategies.stack import Stack
from irevrnn.strategies.strategy import States, flat, leaf

#: The least memory that is worth giving back to the system.
SLACK = 64_000
#: Bytes of an operation in a graph: its node, and the objects around what it saves.
NODE_BYTES = 1000


class Measured(NamedTuple):
    """The bytes of a pass over some steps, without its input, parameters and their gradients.

    Attributes:
        saved: that autograd saves between forward and backward, beside the output.
        output, state: of the output, and of the last states.
        alive: after each operation that allocates some, without the output and last states.
        resident: of the process at the end.
    """

    steps: int
    saved: int
    output: int
    state: int
    alive: list[int]
    resident: int


class Costs(NamedTuple):
    """A short and a longer pass, which tell the bytes of one over any number of steps."""

    short: Measured
    longer: Measured

    def of(self, steps: int) -> tuple[float, float, float]:
        """Return what is saved, the most that is alive at once, and the output."""
        one, other = self
        times = (steps - one.steps) / max(1, other.steps - one.steps)
        if len(one.alive) == len(other.alive):
            moments = zip(one.alive, other.alive, strict=True)
            peak = max(first + times * (second - first) for first, second in moments)
        else:  # a module takes more operations for more steps
            growth = max(max(other.alive) - max(one.alive), other.saved - one.saved)
            peak = max(one.alive) + times * growth
        saved = one.saved + times * (other.saved - one.saved)
        return saved, peak, one.output + times * (other.output - one.output)


def resident_bytes() -> int:
    """Return the memory of this process that is resident; 0 where the system does not tell."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 0


def measure(
    stack: Stack, x: Tensor, states: States, steps: Steps, run: Callable[..., Any]
) -> Measured:
    """Measure a training pass over steps from the first on; x is that of all steps.

    ``run`` takes some of x, states and steps, and returns the output and the last states. Modules
    and generators are left as they were.
    """
    modules = nn.ModuleList([*stack.modules, *stack.reverse])
    parameters, alive = [*modules.parameters()], _Alive()
    gradients = Gradients([*modules], parameters, [p.requires_grad for p in parameters])
    buffers = [(b, b.clone()) for b in modules.buffers()]  # such as statistics
    with (
        torch.random.fork_rng([x.device] if x.is_cuda else []),
        torch.inference_mode(False),
        torch.enable_grad(),
        gradients.collected(),
        observed_as(False),
    ):
        leaves: States = [None if s is None else tuple(map(leaf, s)) for s in states]
        part = x[steps.rows].detach().requires_grad_(x.requires_grad)
        with alive:
            output, finals = run(part, leaves, steps)
        outputs = [*flat(finals), output]
        alive.leave_out(outputs)
        saved = sum(size for size, _ in alive.living.values())
        upstream = [torch.ones_like(y) for y in outputs]
        with alive:
            _, of_x = backpropagate(flat(leaves), outputs, upstream, gradients, part)
        alive.leave_out([] if of_x is None else [of_x])
        resident, state = resident_bytes(), sum(x.nbytes for x in flat(finals))
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)
    return Measured(steps.end, saved, output.nbytes, state, alive.bytes, resident)


class _Alive(TorchDispatchMode):
    """Follow the storages that operators allocate."""

    def __init__(self) -> None:
        super().__init__()
        #: Bytes that are alive, and those after each operation that allocated some.
        self.now, self.bytes = 0, [0]
        #: The size of each storage that is alive, and the first entry of ``bytes`` with it.
        self.living: dict[int, tuple[int, int]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Do without a guard against ``torch.compile``, which imports the compiler: 150 MB."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.now += NODE_BYTES * torch.is_grad_enabled()
        new = {key: x for x in _tensors(result) if (key := _key(x)) not in self.living}
        if new:  # most operations return views
            for x in _tensors((args, kwargs)):
                new.pop(_key(x), None)
        for key, x in new.items():
            storage = x.untyped_storage()
            self.living[key] = storage.nbytes(), len(self.bytes)
            self.now += storage.nbytes()
            weakref.finalize(storage, self._free, key)
        if new:
            self.bytes.append(self.now)
        return result

    def _free(self, key: int) -> None:
        self.now -= self.living.pop(key)[0]

    def leave_out(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors that are alive as if they had no bytes."""
        for key in map(_key, tensors):
            size, begin = self.living.get(key, (0, 0))
            if size:
                self.living[key] = 0, begin
                self.now -= size
                self.bytes[begin:] = [each - size for each in self.bytes[begin:]]


def _tensors(tree: Any) -> list[Tensor]:
    """Return the dense tensors of a tree; others have no storage of their own."""
    leaves = (x for x in tree_leaves(tree) if isinstance(x, Tensor))
    return [x for x in leaves if x.layout is torch.strided]


def _key(x: Tensor) -> int:
    return x.untyped_storage()._cdata
