"""Selective oscillators: their angles and decays may depend on the step (``eq:selective``)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from irevrnn.kernels import reference
from irevrnn.kernels.ops import HALF, SEGMENT
from irevrnn.recurrences.oscillator import backend_of, run_reference, saved_interval


class Turns(NamedTuple):
    """How the steps turn the state (h, c), and what of it they keep.

    Attributes:
        angle: in radians, (T, B, H) or (N, H) packed; or (B, H), the same in all steps.
        decay: what h and c are multiplied by after the rotation, likewise; None for 1.
    """

    angle: Tensor
    decay: Tensor | None

    @property
    def tensors(self) -> list[Tensor]:
        """Those that there are."""
        return [x for x in self if x is not None]

    @property
    def arguments(self) -> tuple[Any, ...]:
        """Of the operators in fixed point: the tensors, and the names of g and f."""
        return self.tensors, "identity", "identity"

    def scan(
        self, z: Tensor, state: tuple[Tensor, Tensor], memory: str = "recompute",
        batch_sizes: Tensor | None = None, resets: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Run the oscillators over z from a state (h, c); return h of all steps, h_n and c_n.

        ``store`` saves what ``recompute`` does: a step is linear, so no intermediate is needed.
        """
        if z.dtype in HALF:
            wide = Turns(self.angle.float(), None if self.decay is None else self.decay.float())
            states = state[0].float(), state[1].float()
            out, h_n, c_n = wide.scan(z.float(), states, memory, batch_sizes, resets)
            return out.to(z.dtype), h_n.to(state[0].dtype), c_n.to(state[1].dtype)
        tensors = (z, *state, *self.tensors)
        backend = backend_of(*tensors)
        if backend in ("python", "transform"):
            memory = "store" if backend == "transform" else memory
            return self._run_reference(z, *state, memory, batch_sizes, resets)
        interval = saved_interval("recompute", *tensors)
        out, h_n, c_n, _ = torch.ops.irevrnn.selective_scan.default(
            z, *state, self.tensors, batch_sizes, interval, backend == "vector", resets
        )
        return out, h_n, c_n

    def _run_reference(
        self, z: Tensor, h: Tensor, c: Tensor, memory: str, *layout: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        streams = [x for x in self.tensors if x.shape == z.shape]

        def function(*arguments: Any) -> Any:
            z_, *parts = arguments[: 1 + len(streams)]
            h, c, *layout = arguments[1 + len(streams) :]
            of_steps = iter(parts)
            turns = [next(of_steps) if x.shape == z.shape else x for x in self.tensors]
            decay = turns[1] if len(turns) > 1 else None
            return reference.selective_scan(z_, h, c, turns[0], decay, *layout)

        return run_reference(function, (z, *streams), h, c, memory, *layout)

    def gradient(
        self, result: Any, z: Tensor, h_0: Tensor, c_0: Tensor, vectorize: bool,
        resets: Tensor | None, batch_sizes: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Return a pass as a function of its inputs (:func:`fixed_scan.with_gradient`)."""
        out, h_n, c_n = _PassGradient.apply(
            result, (batch_sizes, SEGMENT, vectorize, resets), z, h_0, c_0, *self.tensors
        )
        return out, h_n, c_n


class _PassGradient(torch.autograd.Function):
    """A pass in fixed point as a function of z, the initial states, angles and decays."""

    @staticmethod
    def forward(ctx: Any, result: Any, options: Any, z: Tensor, *others: Tensor) -> Any:
        before = result.before.numbers.values(z.dtype)
        batch_sizes, *ctx.numbers, resets = options
        ctx.save_for_backward(result.out, result.saved, *before, *others[2:], batch_sizes, resets)
        ctx.set_materialize_grads(False)
        return result.out, *result.after.numbers.values(z.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *arriving: Any) -> Any:
        *tensors, batch_sizes, resets = ctx.saved_tensors
        out, saved, h_0, c_0, *turns = tensors
        gradients = torch.ops.irevrnn.selective_scan_backward.default(
            *arriving, out, saved, h_0, c_0, turns, batch_sizes, *ctx.numbers, resets
        )
        return None, None, *gradients
