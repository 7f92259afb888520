"""One recurrence over a sequence: ours and those of the peers.

Each takes a sequence (T, B, H) to another of the same shape and is differentiated for its input,
its weights and its initial states. Upstream gradients reach all steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from experiments.bench.measure import interleaved_times, saved_bytes, summary
from irevrnn.kernels import reference
from irevrnn.modules.functional import scan
from irevrnn.modules.rnn import IRevRNN

#: Steps that torch.compile unrolls at once. Longer chunks take minutes to compile.
COMPILED_STEPS = 16


class Shape(NamedTuple):
    """T, B, H and R."""

    steps: int
    batch: int
    hidden: int
    couplings: int


class Problem(NamedTuple):
    """Inputs of the cell, as :func:`irevrnn.scan` takes them, which all require gradients."""

    z: Tensor
    h_0: Tensor
    c_0: Tensor
    u: Tensor
    a: Tensor
    b: Tensor


def make_problem(shape: Shape, device: str = "cpu") -> Problem:
    """Draw float32 inputs on the CPU, the same for every device."""
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, generator=generator)
    steps, batch, hidden, couplings = shape
    z, h_0, c_0 = draw(steps, batch, hidden), draw(batch, hidden), draw(batch, hidden)
    u = torch.rand(hidden, generator=generator)
    tensors = (z, h_0, c_0, u, *(0.1 * draw(couplings, hidden) for _ in range(2)))
    return Problem(*(x.to(device).requires_grad_() for x in tensors))


@dataclass(frozen=True)
class Timed:
    """A recurrence to time, or a stack of them, with its weights, initial states among them.

    ``forward`` takes the sequence (T, B, features) to a tuple of all tensors that its caller would
    get, final states included.
    """

    forward: Callable[[Tensor], tuple[Tensor, ...]]
    weights: tuple[Tensor, ...]

    def step(self, x: Tensor, grad_out: Tensor) -> None:
        """Run forward and, with the upstream gradient of the first output, backward."""
        self._drop_gradients(x)  # or autograd would add to them, which no peer should pay for
        self.forward(x)[0].backward(grad_out)

    def timed_step(self, x: Tensor, grad_out: Tensor) -> None:
        """Run a step, and free the gradients.

        Freeing a large one takes some milliseconds, which the next method would pay for.
        """
        self.step(x, grad_out)
        self._drop_gradients(x)

    def count_saved(self, x: Tensor) -> int:
        """Count the bytes saved for the backward pass beyond ``x``, weights and outputs."""
        kept = (x, *self.weights)
        return saved_bytes(lambda: self.forward(x), exclude=kept, exclude_output=True)

    def _drop_gradients(self, x: Tensor) -> None:
        for leaf in (x, *self.weights):
            leaf.grad = None


def compare(
    methods: Mapping[str, Timed],
    x: Tensor,
    grad_out: Tensor,
    repetitions: int,
    pairs: Mapping[str, tuple[str, str]],
) -> dict[str, Any]:
    """Time forward plus backward of each method, interleaved, and count what it saves.

    Returns a :func:`~experiments.bench.measure.summary` with ``saved_bytes`` and ``repetitions`` of
    each method.
    """
    saved = {name: method.count_saved(x) for name, method in methods.items()}
    steps = {name: partial(method.timed_step, x, grad_out) for name, method in methods.items()}
    times = interleaved_times(steps, repetitions)
    report = summary(times, pairs)
    for name, entry in report["methods"].items():
        entry |= {"saved_bytes": saved[name], "repetitions": len(times[name])}
    return report


class Method(NamedTuple):
    """A recurrence that can be built for a problem or shape, and its name in tables and figures."""

    label: str
    build: Callable[[Any], Timed]


def _function(run: Callable[..., tuple[Tensor, ...]], problem: Problem) -> Timed:
    weights = problem[1:]
    return Timed(lambda z: run(z, *weights), weights)


def _layer(memory: str, activation: str, problem: Problem) -> Timed:
    layer = partial(IRevRNN, num_couplings=len(problem.a), activation=activation, memory=memory)
    return _peer(partial(layer, batch_first=False), problem)


def _peer(kind: Callable[..., nn.Module], problem: Problem) -> Timed:
    hidden = len(problem.u)
    module = kind(hidden, hidden, device=problem.z.device)
    return Timed(lambda x: tuple(tree_leaves(module(x))), tuple(module.parameters()))


def _compiled_chunks(problem: Problem) -> Timed:
    # fullgraph: a chunk that falls back to eager PyTorch would be a weakened peer.
    run = torch.compile(reference.scan, dynamic=False, fullgraph=True)
    return _function(partial(_in_chunks, run, COMPILED_STEPS), problem)


def _checkpoint(use_reentrant: bool, problem: Problem) -> Timed:
    run = partial(checkpoint, reference.scan, use_reentrant=use_reentrant)
    # About sqrt(T) chunks of sqrt(T) steps need the least for boundaries and a rebuilt chunk.
    return _function(partial(_in_chunks, run, math.isqrt(len(problem.z))), problem)


def _in_chunks(
    run: Callable[..., tuple[Tensor, Tensor, Tensor]],
    size: int, z: Tensor, h: Tensor, c: Tensor, *weights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    outputs = []
    for chunk in z.split(size):
        out, h, c = run(chunk, h, c, *weights)
        outputs.append(out)
    return torch.cat(outputs), h, c


def _indrnn(problem: Problem) -> Timed:
    def forward(z: Tensor) -> tuple[Tensor, ...]:
        h, outputs = problem.h_0, []
        for z_t in z.unbind(0):
            h = torch.addcmul(z_t, problem.u, h).relu()  # one operation less than z_t + u * h
            outputs.append(h)
        return torch.stack(outputs), h

    return Timed(forward, (problem.h_0, problem.u))


#: Everything that is compared, by its name in result files; ours come first.
METHODS: dict[str, Method] = {
    "scan": Method("scan, recompute", partial(_function, partial(scan, memory="recompute"))),
    "scan_store": Method("scan, store", partial(_function, partial(scan, memory="store"))),
    "layer": Method("layer, recompute", partial(_layer, "recompute", "relu")),
    "layer_checkpoint": Method("layer, checkpoint", partial(_layer, "checkpoint", "relu")),
    # relu discards too much for the inverse; leaky_relu is what one would train with.
    "layer_reversible": Method("layer, reversible", partial(_layer, "reversible", "leaky_relu")),
    "lstm": Method("nn.LSTM", partial(_peer, nn.LSTM)),
    "gru": Method("nn.GRU", partial(_peer, nn.GRU)),
    "autograd": Method("cell, autograd", partial(_function, reference.scan)),
    "compiled_chunks": Method("cell, compiled chunks", _compiled_chunks),
    "checkpoint": Method("cell, checkpoints", partial(_checkpoint, False)),
    "checkpoint_reentrant": Method("cell, reentrant checkpoints", partial(_checkpoint, True)),
    "indrnn": Method("IndRNN, autograd", _indrnn),
}
#: The methods that ratios are taken to, so these are always measured.
OURS = ("scan", "layer")


def measure_recurrences(shape: Shape, names: Sequence[str], repetitions: int) -> dict[str, Any]:
    """Compare methods at a shape: each with ``scan``, and each peer module with the layer."""
    problem = make_problem(shape)
    pairs = {name: (name, "scan") for name in names if name != "scan"}
    pairs |= {f"{name}_to_layer": (name, "layer") for name in ("lstm", "gru") if name in names}
    methods = {name: METHODS[name].build(problem) for name in names}
    grad_out = torch.randn(problem.z.shape)
    return {**shape._asdict(), **compare(methods, problem.z, grad_out, repetitions, pairs)}


def prepare_step(name: str, shape: Shape) -> Callable[[], object]:
    """Build a method and its inputs, warm it up on a few steps, return forward plus backward."""
    problem = make_problem(shape)
    recurrence = METHODS[name].build(problem)
    grad_out = torch.randn(problem.z.shape)
    # Kernels are loaded and compiled here; for chunks, those of full length and the last one.
    few = min(shape.steps, 2 * COMPILED_STEPS + shape.steps % COMPILED_STEPS)
    recurrence.step(problem.z[:few].detach().requires_grad_(), grad_out[:few])
    return lambda: recurrence.step(problem.z, grad_out)
