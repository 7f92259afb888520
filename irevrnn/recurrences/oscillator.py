"""The recurrence of oscillators in floating point, by the kernels or the reference."""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from irevrnn.kernels import reference
from irevrnn.kernels.backend import choose_backend
from irevrnn.kernels.observers import transformed
from irevrnn.kernels.ops import HALF, NOTHING_SAVED, SEGMENT, has_tangent


class Weights(NamedTuple):
    """The weights of the recurrence, u (H,), a and b (R, H), and the names of g and f."""

    u: Tensor
    a: Tensor
    b: Tensor
    activation: str
    coupling_activation: str

    @classmethod
    def of(cls, block: Any) -> Weights:
        """Return the weights of a block."""
        weights = block.recurrent_weight, block.coupling_a, block.coupling_b
        return cls(*weights, block.activation, block.coupling_activation)

    @property
    def arguments(self) -> tuple[Any, ...]:
        """Of the operators in fixed point: u, a and b, and the names of g and f."""
        return [*self[:3]], *self[3:]

    def gradient(
        self, result: Any, z: Tensor, h_0: Tensor, c_0: Tensor, vectorize: bool,
        resets: Tensor | None, batch_sizes: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Return a pass as a function of its inputs (:func:`fixed_scan.with_gradient`)."""
        states = [*result.before[:3], *result.after[:3]]
        results: tuple[Tensor, Tensor, Tensor] = torch.ops.irevrnn.fixed_gradient.default(
            z, h_0, c_0, *self[:3], result.out, result.saved, states, *self[3:], vectorize, resets,
            batch_sizes,
        )  # fmt: skip
        return results

    def scan(
        self, z: Tensor, state: tuple[Tensor, Tensor], memory: str = "recompute",
        batch_sizes: Tensor | None = None, resets: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Run the recurrence over z from a state (h, c), as :func:`irevrnn.scan` does.

        It checks nothing: that would take longer than a single step.
        """
        tensors = (*state, *self[:3])
        if z.dtype not in HALF:
            return _run(z, tensors, self[3:], memory, batch_sizes, resets)
        wide = tuple(x.float() for x in tensors)
        out, h_n, c_n = _run(z.float(), wide, self[3:], memory, batch_sizes, resets)
        return out.to(z.dtype), h_n.to(state[0].dtype), c_n.to(state[1].dtype)


def backend_of(*tensors: Tensor) -> str:
    """Return the backend for tensors, or ``"transform"`` where one of ``torch.func`` is on.

    The reference alone has the derivatives that transforms ask for. They cannot look into a
    checkpoint, so under them ``memory`` has no say in what is saved.
    """
    if transformed() or has_tangent(*tensors):
        return "transform"
    choose, z = choose_backend, tensors[0]
    if torch.compiler.is_compiling():
        from irevrnn.kernels.compiling import choose_backend as choose
    return choose(z.device.type, z.dtype)


def _run(
    z: Tensor, rest: tuple[Tensor, ...], options: tuple[str, str], memory: str,
    batch_sizes: Tensor | None, resets: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    h, c, u, a, b = rest
    backend = backend_of(z, *rest)
    if backend in ("python", "transform"):

        def function(z: Tensor, h: Tensor, c: Tensor, *layout: Any) -> Any:
            return reference.scan(z, h, c, u, a, b, *options, *layout)

        memory = "store" if backend == "transform" else memory
        return run_reference(function, (z,), h, c, memory, batch_sizes, resets)
    interval = saved_interval(memory, z, *rest)
    out, h_n, c_n, _ = torch.ops.irevrnn.scan.default(
        z, *rest, batch_sizes, *options, interval, backend == "vector", resets
    )
    return out, h_n, c_n


def saved_interval(memory: str, *tensors: Tensor) -> int:
    """Return the steps between two saved cell states; 0 saves everything."""
    differentiated = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    # What torch.jit.trace records is run without gradients to be checked, and with them afterwards.
    if not (differentiated or torch.jit.is_tracing()):
        return NOTHING_SAVED
    if memory == "store":
        return 0
    # What an exported program saves would depend on the length: it is for inference alone.
    return NOTHING_SAVED if torch.compiler.is_exporting() else SEGMENT


def run_reference(
    function: Callable[..., Any], streams: tuple[Tensor, ...], h: Tensor, c: Tensor, memory: str,
    batch_sizes: Tensor | None, resets: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Run the reference; with ``recompute``, under one checkpoint for each segment.

    ``function`` takes the streams, which have a row for each step, then h, c, batch_sizes and
    resets. It returns h of all steps, h and c.
    """
    if memory == "store":
        return function(*streams, h, c, batch_sizes, resets)  # type: ignore[no-any-return]
    none: Any = repeat(None)
    sizes = none if batch_sizes is None else batch_sizes.split(SEGMENT)
    rows: Any = SEGMENT if batch_sizes is None else [int(part.sum()) for part in sizes]
    marks = none if resets is None else resets.split(rows)
    pieces = zip(*(x.split(rows) for x in streams), strict=True)
    outputs = []
    for piece, *layout in zip(pieces, sizes, marks, strict=False):
        out, h, c = checkpoint(
            function, *piece, h, c, *layout, use_reentrant=False, preserve_rng_state=False
        )
        outputs.append(out)
    return torch.cat(outputs), h, c
