"""One recurrence over a sequence, ours and those of the peers, for ``make bench`` and notebook 04.

Each takes a sequence (T, B, H) to another of the same shape and is differentiated for its input,
its weights and its initial states. Upstream gradients reach all steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from irevrnn import reference
from irevrnn.functional import scan
from irevrnn.rnn import IRevRNN

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


def make_problem(shape: Shape, seed: int = 0, device: str = "cpu") -> Problem:
    """Draw float32 inputs on the CPU, the same for every device."""
    generator = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, generator=generator)
    steps, batch, hidden, couplings = shape
    tensors = (
        draw(steps, batch, hidden),
        draw(batch, hidden),
        draw(batch, hidden),
        torch.rand(hidden, generator=generator),
        0.1 * draw(couplings, hidden),
        0.1 * draw(couplings, hidden),
    )
    return Problem(*(x.to(device).requires_grad_() for x in tensors))


@dataclass(frozen=True)
class Recurrence:
    """A recurrence with its weights.

    Attributes:
        forward: from the sequence (T, B, H) to a tuple of tensors, the first of them (T, B, H). It
            returns all that its caller would get, final states included.
        weights: parameters and initial states.
    """

    forward: Callable[[Tensor], tuple[Tensor, ...]]
    weights: tuple[Tensor, ...]

    def step(self, x: Tensor, grad_out: Tensor) -> None:
        """Forward and backward: fresh gradients in ``grad`` of ``x`` and of the weights.

        Args:
            x: (T, B, H), a leaf that requires its gradient.
            grad_out: (T, B, H), upstream gradient of the first output.
        """
        self._drop_gradients(x)  # or autograd would add to them, which no peer should pay for
        self.forward(x)[0].backward(grad_out)

    def whole_step(self, x: Tensor, grad_out: Tensor) -> None:
        """The same, and the gradients are freed.

        What takes its turn next would pay for that: some ms for a large one that goes back to the
        system.
        """
        self.step(x, grad_out)
        self._drop_gradients(x)

    def _drop_gradients(self, x: Tensor) -> None:
        for leaf in (x, *self.weights):
            leaf.grad = None


class Method(NamedTuple):
    """A recurrence that can be built for a problem, and its name in tables and figures."""

    label: str
    build: Callable[[Problem], Recurrence]


def _scan(memory: str, problem: Problem) -> Recurrence:
    weights = problem[1:]
    return Recurrence(lambda z: scan(z, *weights, memory=memory), weights)


def _layer(memory: str, activation: str, problem: Problem) -> Recurrence:
    couplings, hidden = problem.a.shape
    return _module(
        IRevRNN(
            hidden, hidden, num_couplings=couplings, activation=activation,
            batch_first=False, memory=memory, device=problem.z.device,
        )
    )  # fmt: skip


def _module(module: nn.Module) -> Recurrence:
    def forward(x: Tensor) -> tuple[Tensor, ...]:
        out, state = module(x)
        return out, *(state if isinstance(state, tuple) else (state,))

    return Recurrence(forward, tuple(module.parameters()))


def _lstm(problem: Problem) -> Recurrence:
    hidden = len(problem.u)
    return _module(nn.LSTM(hidden, hidden, device=problem.z.device))


def _gru(problem: Problem) -> Recurrence:
    hidden = len(problem.u)
    return _module(nn.GRU(hidden, hidden, device=problem.z.device))


def _autograd(problem: Problem) -> Recurrence:
    weights = problem[1:]
    return Recurrence(lambda z: reference.scan(z, *weights), weights)


def _compiled_chunks(problem: Problem) -> Recurrence:
    # fullgraph: a chunk that falls back to eager PyTorch would be a weakened peer.
    run = torch.compile(reference.scan, dynamic=False, fullgraph=True)
    weights = problem[1:]
    return Recurrence(lambda z: _in_chunks(run, COMPILED_STEPS, z, *weights), weights)


def _checkpoint(use_reentrant: bool, problem: Problem) -> Recurrence:
    run = partial(checkpoint, reference.scan, use_reentrant=use_reentrant)
    weights = problem[1:]
    # About sqrt(T) chunks of sqrt(T) steps hold the least, borders and one rebuilt chunk together.
    return Recurrence(lambda z: _in_chunks(run, math.isqrt(len(z)), z, *weights), weights)


def _in_chunks(
    run: Callable[..., tuple[Tensor, Tensor, Tensor]],
    size: int, z: Tensor, h: Tensor, c: Tensor, u: Tensor, a: Tensor, b: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    outputs = []
    for chunk in z.split(size):
        out, h, c = run(chunk, h, c, u, a, b)
        outputs.append(out)
    return torch.cat(outputs), h, c


def _indrnn(problem: Problem) -> Recurrence:
    h_0, u = problem.h_0, problem.u

    def forward(z: Tensor) -> tuple[Tensor, ...]:
        h, outputs = h_0, []
        for z_t in z.unbind(0):
            h = torch.addcmul(z_t, u, h).relu()  # one operation less than z_t + u * h
            outputs.append(h)
        return torch.stack(outputs), h

    return Recurrence(forward, (h_0, u))


#: Everything that is compared, by its name in result files; ours come first.
METHODS: dict[str, Method] = {
    "scan": Method("scan, recompute", partial(_scan, "recompute")),
    "scan_store": Method("scan, store", partial(_scan, "store")),
    "layer": Method("IRevRNN layer", partial(_layer, "recompute", "relu")),
    "layer_checkpoint": Method("layer, checkpoint", partial(_layer, "checkpoint", "relu")),
    # relu discards too much to go back; leaky_relu is what one would train with.
    "layer_reversible": Method("layer, reversible", partial(_layer, "reversible", "leaky_relu")),
    "lstm": Method("nn.LSTM", _lstm),
    "gru": Method("nn.GRU", _gru),
    "autograd": Method("plain autograd", _autograd),
    "compiled_chunks": Method("compiled chunks", _compiled_chunks),
    "checkpoint": Method("checkpoint", partial(_checkpoint, False)),
    "checkpoint_reentrant": Method("checkpoint, reentrant", partial(_checkpoint, True)),
    "indrnn": Method("IndRNN, plain", _indrnn),
}


def prepare_step(name: str, shape: Shape) -> Callable[[], object]:
    """Build a method and its inputs, warm it up on a few steps, return forward plus backward.

    Args:
        name: a key of :data:`METHODS`.
        shape: (T, B, H, R).
    """
    problem = make_problem(shape)
    recurrence = METHODS[name].build(problem)
    grad_out = torch.randn(problem.z.shape)
    # Kernels are loaded and compiled here; for chunks, those of full length and the last one.
    few = min(shape.steps, 2 * COMPILED_STEPS + shape.steps % COMPILED_STEPS)
    recurrence.step(problem.z[:few].detach().requires_grad_(), grad_out[:few])
    return lambda: recurrence.step(problem.z, grad_out)
