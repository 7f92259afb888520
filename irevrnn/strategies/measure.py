"""Measure the memory of a training pass over the first steps of a sequence.

The modules run forward and backward over real values, and each storage that an operator allocates
is followed until it is freed. What an operator allocates and frees by itself is not seen.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from irevrnn.kernels.observers import observed_as
from irevrnn.recurrences.packing import Steps
from irevrnn.recurrences.protocol import State
from irevrnn.strategies.chunk_graph import Gradients, backpropagate
from irevrnn.strategies.stack import Stack
from irevrnn.strategies.strategy import States, flat, leaf

#: The least memory that is worth giving back to the system.
SLACK = 64_000
#: Bytes of an operation in a graph: its node, and the objects around what it saves.
NODE_BYTES = 1000
#: Runs some steps of x from states; returns the output and the last states.
Runner = Callable[[Tensor, States, Steps], tuple[Tensor, list[State]]]


class Measured(NamedTuple):
    """The bytes of a pass over some steps, without its input, parameters and their gradients.

    Attributes:
        steps: their number.
        saved: that autograd saves between forward and backward, beside the output.
        output, state: of the output, and of the last states.
        alive: that are alive after each operation that allocates some, without the output.
        resident: memory of the process at the end.
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


def measure(stack: Stack, x: Tensor, states: States, steps: Steps, run: Runner) -> Measured:
    """Measure a training pass over steps from the first on; x is that of all steps."""
    modules = nn.ModuleList([*stack.modules, *stack.reverse])
    parameters, alive = [*modules.parameters()], _Alive()
    gradients = Gradients([*modules], parameters, [p.requires_grad for p in parameters])
    with _leaving_no_trace(modules, x), gradients.collected(), observed_as(False):
        leaves: States = [None if s is None else tuple(map(leaf, s)) for s in states]
        part = x[steps.rows].detach().requires_grad_(x.requires_grad)
        with alive:
            output, finals = run(part, leaves, steps)
        outputs = [*flat(finals), output]
        saved = alive.total(without=outputs)
        alive.leave_out(output)
        upstream = [torch.ones_like(y) for y in outputs]
        with alive:
            _, of_x = backpropagate(flat(leaves), outputs, upstream, gradients, part)
        if of_x is not None:
            alive.leave_out(of_x)
        state = sum(x.nbytes for x in flat(finals))
        return Measured(steps.end, saved, output.nbytes, state, alive.bytes, resident_bytes())


@contextmanager
def _leaving_no_trace(modules: nn.Module, x: Tensor) -> Iterator[None]:
    """Run modules with gradients, but leave generators and buffers as they are."""
    buffers = [*modules.buffers()]
    before = [b.clone() for b in buffers]  # statistics are those of passes that a user makes
    devices = [x.device] if x.is_cuda else []
    with torch.random.fork_rng(devices), torch.inference_mode(False), torch.enable_grad():
        yield
    with torch.no_grad():
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)


class _Alive(TorchDispatchMode):
    """Follow the storages that operators allocate.

    Attributes:
        bytes: those alive after each operation that allocates some.
        living: the size of each storage that is alive, and the first entry of ``bytes`` with it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.now = [0], 0
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

    def total(self, without: list[Tensor]) -> int:
        """Return the bytes of all storages that are alive, but for those of some tensors."""
        left_out = {*map(_key, without)}
        return sum(size for key, (size, _) in self.living.items() if key not in left_out)

    def leave_out(self, x: Tensor) -> None:
        """Count a tensor that is alive as if it had no bytes."""
        size, begin = self.living.get(_key(x), (0, 0))
        if size:
            self.living[_key(x)] = 0, begin
            self.now -= size
            self.bytes[begin:] = [each - size for each in self.bytes[begin:]]


def _tensors(tree: Any) -> list[Tensor]:
    """Return the dense tensors of a tree; others have no storage of their own."""
    leaves = (x for x in tree_leaves(tree) if isinstance(x, Tensor))
    return [x for x in leaves if x.layout is torch.strided]


def _key(x: Tensor) -> int:
    return x.untyped_storage()._cdata
