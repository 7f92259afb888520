"""The recurrence of oscillators in floating point, by the kernels or the reference."""

from __future__ import annotations

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


def _run(
    z: Tensor, rest: tuple[Tensor, ...], options: tuple[str, str], memory: str,
    batch_sizes: Tensor | None, resets: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    choose = choose_backend
    if torch.compiler.is_compiling():
        from irevrnn.kernels.compiling import choose_backend as choose
    backend = choose(z.device.type, z.dtype)
    # The reference alone has all derivatives of all transforms, which cannot look into a
    # checkpoint; what they save is their own affair.
    transforms = transformed() or has_tangent(z, *rest)
    arguments: Any = (*rest, *options, batch_sizes, resets)
    if transforms or (backend == "python" and memory == "store"):
        return reference.scan(z, *arguments)
    if backend == "python":
        return _recompute_reference(z, batch_sizes, resets, *rest, *options)
    interval = _interval(memory, z, *rest)
    out, h_n, c_n, _ = torch.ops.irevrnn.scan.default(
        z, *rest, batch_sizes, *options, interval, backend == "vector", resets
    )
    return out, h_n, c_n


def _interval(memory: str, *tensors: Tensor) -> int:
    """Return the steps between two saved cell states; 0 saves everything."""
    differentiated = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    # What torch.jit.trace records is run without gradients to be checked, and with them afterwards.
    if not (differentiated or torch.jit.is_tracing()):
        return NOTHING_SAVED
    if memory == "store":
        return 0
    # What an exported program saves would depend on the length: it is for inference alone.
    return NOTHING_SAVED if torch.compiler.is_exporting() else SEGMENT


def _recompute_reference(
    z: Tensor, batch_sizes: Tensor | None, resets: Tensor | None, h: Tensor, c: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the reference with ``recompute``: one checkpoint for each segment."""
    none: Any = repeat(None)
    sizes = none if batch_sizes is None else batch_sizes.split(SEGMENT)
    rows: Any = SEGMENT if batch_sizes is None else [int(part.sum()) for part in sizes]
    marks = none if resets is None else resets.split(rows)
    outputs = []
    for part in zip(z.split(rows), sizes, marks, strict=False):
        out, h, c = checkpoint(
            reference.scan, part[0], h, c, *rest, *part[1:], use_reentrant=False,
            preserve_rng_state=False,
        )  # fmt: skip
        outputs.append(out)
    return torch.cat(outputs), h, c
