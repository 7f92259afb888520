"""Measure the memory of a training pass over the first steps of a sequence.

The modules run forward and backward over real values, and each storage that an operator allocates
is followed until it is freed. What an operator allocates and frees by itself is not seen.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from irevrnn.kernels.observers import observed_as
from irevrnn.kernels.ops import SEGMENT
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


class Cost(NamedTuple):
    """The bytes of a pass over some steps, without its input, parameters and their gradients.

    Attributes:
        saved: that autograd saves between forward and backward, beside the output.
        peak: the most that are alive at once, without the output.
        output: of the output.
    """

    saved: float
    peak: float
    output: float


class Measured(NamedTuple):
    """The bytes of a pass, as in :class:`Cost`, but ``alive`` moment by moment; and of states."""

    steps: int
    saved: int
    alive: list[int]
    nodes: int
    output: int
    state: int


class Costs(NamedTuple):
    """The costs of a short and of a longer pass, which tell those of any number of steps."""

    short: Measured
    longer: Measured

    def of(self, steps: int) -> Cost:
        """Return the cost of a pass over that many steps."""
        one, other = self
        more = other.steps - one.steps
        times = (steps - one.steps) / more if more else 0

        def further(first: int, second: int) -> float:
            return first + times * (second - first)

        if len(one.alive) == len(other.alive):
            peak = max(map(further, one.alive, other.alive), default=0)
        else:  # a module takes more operations for more steps
            growth = max(max(other.alive) - max(one.alive), other.saved - one.saved)
            peak = max(one.alive) + times * growth
        peak += NODE_BYTES * further(one.nodes, other.nodes)
        return Cost(further(one.saved, other.saved), peak, further(one.output, other.output))


def resident_bytes() -> int:
    """Return the memory of this process that is resident; 0 where the system does not tell."""
    with suppress(OSError, ValueError, IndexError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 0


def measure(stack: Stack, x: Tensor, states: States, steps: Steps, run: Runner) -> Costs:
    """Measure passes of a strategy over the first segment of x and over two."""
    lengths = min(steps.end, SEGMENT), min(steps.end, 2 * SEGMENT)
    with _leaving_no_trace(stack, x):
        parts = (_Part(stack, x, states, steps.part(0, length)) for length in lengths)
        return Costs(*(_measure(part, run) for part in parts))


def rehearse(stack: Stack, x: Tensor, states: States, steps: Steps, run: Runner) -> int:
    """Run some steps forward and backward; return the resident memory of the process then."""
    with _leaving_no_trace(stack, x):
        part = _Part(stack, x, states, steps)
        outputs = part.forward(run)
        part.backward(outputs, [torch.ones_like(y) for y in outputs])
        return resident_bytes()


@contextmanager
def _leaving_no_trace(stack: Stack, x: Tensor) -> Iterator[None]:
    """Run modules with gradients, but leave generators and buffers as they are."""
    buffers = [b for module in (*stack.modules, *stack.reverse) for b in module.buffers()]
    before = [b.clone() for b in buffers]  # statistics are those of passes that a user makes
    devices = [x.device] if x.is_cuda else []
    with torch.random.fork_rng(devices), torch.inference_mode(False), torch.enable_grad():
        yield
    with torch.no_grad():
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)


class _Part:
    """The first steps of a pass: its input and states as leaves, and the parameters."""

    def __init__(self, stack: Stack, x: Tensor, states: States, steps: Steps) -> None:
        modules = nn.ModuleList([*stack.modules, *stack.reverse])
        parameters = [*modules.parameters()]
        needed = [p.requires_grad for p in parameters]
        self.gradients = Gradients([*modules], parameters, needed)
        self.leaves: States = [None if s is None else tuple(map(leaf, s)) for s in states]
        self.x = x[steps.rows].detach().requires_grad_(x.requires_grad)
        self.steps = replace(steps, rows=slice(None))
        self.known = [self.x, *parameters, *modules.buffers(), *flat(self.leaves)]

    def forward(self, run: Runner) -> list[Tensor]:
        """Return the last states and the output."""
        output, finals = run(self.x, self.leaves, self.steps)
        return [*flat(finals), output]

    def backward(self, outputs: list[Tensor], upstream: list[Tensor]) -> Tensor | None:
        """Backpropagate, and return the gradient of x."""
        with self.gradients.collected():
            _, of_x = backpropagate(flat(self.leaves), outputs, upstream, self.gradients, self.x)
        return of_x


def _measure(part: _Part, run: Runner) -> Measured:
    saved: list[weakref.ref[Tensor]] = []

    def pack(x: Tensor) -> Tensor:
        saved.append(weakref.ref(kept := x.detach()))
        return kept

    with observed_as(False), _Alive() as alive:
        with saved_tensors_hooks(pack, lambda kept: kept):
            outputs = part.forward(run)
        known = {_key(t) for t in (*part.known, *outputs)}
        kept = {_key(t): t for ref in saved if (t := ref()) is not None}
        total = sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in known)
        kept.clear()
        upstream = [torch.ones_like(y) for y in outputs]
        alive.leave_out([*upstream, outputs[-1]])
        of_x = part.backward(outputs, upstream)
        alive.leave_out([] if of_x is None else [of_x])
        *states, output = (y.nbytes for y in outputs)
        return Measured(part.steps.end, total, alive.bytes(), alive.nodes, output, sum(states))


@dataclass
class _Life:
    """The life of a storage: its bytes, and from when on until when."""

    bytes: int
    begin: int
    end: int | None = None


class _Alive(TorchDispatchMode):
    """Follow the storages that are allocated; time is counted in operations that allocate some."""

    def __init__(self) -> None:
        super().__init__()
        self.time = self.nodes = 0
        self.lives: list[_Life] = []
        self.living: dict[int, _Life] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Do without a guard against ``torch.compile``, which imports the compiler: 150 MB."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.nodes += torch.is_grad_enabled()
        results = {_key(x): x for x in _tensors(result)}
        new = results.keys() - self.living.keys()
        if new:  # most operations return views
            new -= {_key(x) for x in _tensors((args, kwargs))}
        for key in new:
            storage = results[key].untyped_storage()
            self.living[key] = _Life(storage.nbytes(), self.time)
            self.lives.append(self.living[key])
            weakref.finalize(storage, self._end, key)
        self.time += bool(new)
        return result

    def _end(self, key: int) -> None:
        self.living.pop(key).end = self.time

    def leave_out(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors that are alive as if they had no bytes."""
        for x in tensors:
            if _key(x) in self.living:
                self.living[_key(x)].bytes = 0

    def bytes(self) -> list[int]:
        """Return the bytes that are alive after each operation that allocates some."""
        changes = [0] * (self.time + 1)
        for life in self.lives:
            changes[life.begin] += life.bytes
            changes[self.time if life.end is None else life.end] -= life.bytes
        return [*accumulate(changes)]


def _tensors(tree: Any) -> list[Tensor]:
    """Return the dense tensors of a tree; others have no storage of their own."""
    leaves = (x for x in tree_leaves(tree) if isinstance(x, Tensor))
    return [x for x in leaves if x.layout is torch.strided]


def _key(x: Tensor) -> int:
    return x.untyped_storage()._cdata
