"""The recurrence of oscillators in floating point, by the kernels or the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from irevrnn.kernels import reference
from irevrnn.kernels.backend import choose_backend
from irevrnn.kernels.observers import transformed
from irevrnn.kernels.ops import HALF, NOTHING_SAVED, SEGMENT, has_tangent

#: h of every step, h_n and c_n.
Scanned: TypeAlias = tuple[Tensor, Tensor, Tensor]


class Oscillators:
    """How oscillators run, whatever their form: the base of two named tuples of their weights.

    Attributes:
        reference: the function of z, h, c, these weights, batch_sizes and resets.
        activation, coupling_activation: the names of g and f.
    """

    reference: Callable[..., Any]
    activation: Any = "identity"
    coupling_activation: Any = "identity"

    @property
    def tensors(self) -> list[Tensor]:
        """Those that there are."""
        return [x for x in iter(self) if isinstance(x, Tensor)]  # type: ignore[call-overload]

    @property
    def arguments(self) -> tuple[Any, ...]:
        """Of the operators in fixed point: the tensors, and the names of g and f."""
        return self.tensors, self.activation, self.coupling_activation

    def scan(
        self: Any, z: Tensor, state: Any, memory: str = "recompute",
        batch_sizes: Tensor | None = None, resets: Tensor | None = None,
    ) -> Scanned:  # fmt: skip
        """Run over z from a state (h, c), as :func:`irevrnn.scan`; return h, h_n and c_n.

        It checks nothing: that would take longer than a single step.
        """
        if z.dtype in HALF:
            wide = type(self)(*(x.float() if isinstance(x, Tensor) else x for x in self))
            states = state[0].float(), state[1].float()
            out, h_n, c_n = wide.scan(z.float(), states, memory, batch_sizes, resets)
            return out.to(z.dtype), h_n.to(state[0].dtype), c_n.to(state[1].dtype)
        tensors = (z, *state, *self.tensors)
        backend = _choose_backend(*tensors)
        if backend == "python":
            return self.reference(z, *state, *self, batch_sizes, resets)
        interval = saved_interval(memory, *tensors)
        results = self.run(z, state, batch_sizes, interval, backend == "vector", resets)
        return results[:3]


class _Weights(NamedTuple):
    u: Tensor
    a: Tensor
    b: Tensor
    activation: str
    coupling_activation: str


class Weights(_Weights, Oscillators):
    """The weights of the recurrence, u (H,), a and b (R, H), and the names of g and f."""

    reference = staticmethod(reference.scan)

    @classmethod
    def of(cls, block: Any) -> Weights:
        """Return the weights of a block."""
        weights = block.recurrent_weight, block.coupling_a, block.coupling_b
        return cls(*weights, block.activation, block.coupling_activation)

    def run(self, z: Tensor, state: Any, batch_sizes: Tensor | None, *options: Any) -> Any:
        """Run the kernel."""
        return torch.ops.irevrnn.scan.default(
            z, *state, *self[:3], batch_sizes, *self[3:], *options
        )

    def gradient(self, result: Any, z: Tensor, state: Any, *options: Any) -> Scanned:
        """Return h, h_n and c_n of a pass in fixed point as functions of z, the state and these.

        The state, (B, H) each, only carries its gradient: the pass has its own. Options are whether
        the kernel was the vectorised one, resets and batch_sizes.
        """
        passed = result.out, result.saved, [*result.before[:3], *result.after[:3]]
        return torch.ops.irevrnn.fixed_gradient.default(
            z, *state, *self[:3], *passed, *self[3:], *options
        )


def _choose_backend(*tensors: Tensor) -> str:
    """Return the backend for tensors: the reference under ``torch.func``, whose derivatives it has.

    The reference saves every intermediate value, whatever ``memory`` is.
    """
    if transformed() or has_tangent(*tensors):
        return "python"
    choose, z = choose_backend, tensors[0]
    if torch.compiler.is_compiling():
        from irevrnn.kernels.compiling import choose_backend as choose
    return choose(z.device.type, z.dtype)


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
