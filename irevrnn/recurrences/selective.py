"""Selective oscillators: their angles and decays may depend on the step (``eq:selective``)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from irevrnn.kernels import reference
from irevrnn.kernels.ops import SEGMENT
from irevrnn.recurrences.oscillator import Oscillators, Scanned


class _Turns(NamedTuple):
    angle: Tensor
    decay: Tensor | None


class Turns(_Turns, Oscillators):
    """How the steps turn the state (h, c), and what of it they keep.

    Attributes:
        angle: in radians, (T, B, H) or (N, H) packed; or (B, H), the same in all steps.
        decay: what h and c are multiplied by after the rotation, likewise; None for 1.
    """

    reference = staticmethod(reference.selective_scan)

    def run(
        self, z: Tensor, state: Any, batch_sizes: Tensor | None, interval: int, *options: Any
    ) -> Any:
        """Run the kernel; ``store`` saves what ``recompute`` does, as a step is linear."""
        return torch.ops.irevrnn.selective_scan.default(
            z, *state, self.tensors, batch_sizes, interval or SEGMENT, *options
        )

    def gradient(self, result: Any, z: Tensor, state: Any, *options: Any) -> Scanned:
        """Return what :meth:`Weights.gradient` does."""
        return _PassGradient.apply(result, options, z, *state, *self.tensors)


class _PassGradient(torch.autograd.Function):
    """A pass in fixed point as a function of z, the initial states, angles and decays."""

    @staticmethod
    def forward(ctx: Any, result: Any, options: Any, z: Tensor, *others: Tensor) -> Any:
        before = result.before.numbers.values(z.dtype)
        ctx.vectorize, resets, batch_sizes = options
        ctx.save_for_backward(result.out, result.saved, *before, *others[2:], batch_sizes, resets)
        ctx.set_materialize_grads(False)
        return result.out, *result.after.numbers.values(z.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *arriving: Any) -> Any:
        *tensors, batch_sizes, resets = ctx.saved_tensors
        out, saved, h_0, c_0, *turns = tensors
        gradients = torch.ops.irevrnn.selective_scan_backward.default(
            *arriving, out, saved, h_0, c_0, turns, batch_sizes, SEGMENT, ctx.vectorize, resets
        )
        return None, None, *gradients
