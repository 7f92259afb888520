"""The compiled recurrence in fixed point: forward, its exact inverse, and its gradient.

``fixed_point.py`` is its reference. The gradient is that of the float recurrence, evaluated at the
states that were visited, straight through every rounding.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from irevrnn.backend import choose_backend
from irevrnn.input_checks import check_resets
from irevrnn.ops import HALF
from irevrnn.strategies.fixed_point import empty_state, to_fixed, to_value

#: The interval of ``scan_backward`` for which all values of f are saved.
_ALL_SAVED = 0


class States(NamedTuple):
    """Fixed-point states of a layer, int64, (B, H) each: output, cell state, bit-stack state."""

    h: Tensor
    c: Tensor
    s: Tensor

    @classmethod
    def of(cls, h_0: Tensor, c_0: Tensor, u: Tensor) -> States:
        """Round float states and begin empty bit stacks, for rounded weights ``u``."""
        return cls(to_fixed(h_0), to_fixed(c_0), empty_state(u, h_0.shape[0]))

    def values(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return outputs and cell states as floats."""
        return to_value(self.h, dtype), to_value(self.c, dtype)


class Buffer(NamedTuple):
    """The words of a layer's bit stacks, and where each stack begins and ends.

    Attributes:
        words: int16, one stack after the other.
        starts, counts: int64, one entry for each stack. In the vectorised kernel the lanes of a
            layer share at most 16 stacks; on a GPU, and in the scalar kernel, each has its own.
    """

    words: Tensor
    starts: Tensor
    counts: Tensor


class Pass(NamedTuple):
    """The result of a pass over some steps, with all that their gradient needs.

    Attributes:
        out: (T, B, H), h of every step.
        values: (T, 2R, B, H), f(p) and f(c) of every coupling.
        before, after: the states at both ends.
    """

    out: Tensor
    values: Tensor
    before: States
    after: States


class RangeError(OverflowError):
    """A value left the range of the fixed-point numbers, or was NaN.

    Attributes:
        step: the first such step, counted from the beginning of the pass.
    """

    def __init__(self, step: int) -> None:
        self.step = step
        super().__init__(f"value out of range at step {step}")


class Weights(NamedTuple):
    """Rounded recurrent weights (H,), coupling weights (R, H), and the names of g and f."""

    u: Tensor
    a: Tensor
    b: Tensor
    activation: str
    coupling_activation: str

    def _arguments(self) -> tuple[Any, ...]:
        return self.u, self.a, self.b, self.activation, self.coupling_activation


def _vectorize(z: Tensor) -> bool:
    """Return whether the vectorised kernel runs, not the scalar one; build them if needed."""
    # No kernel takes half precision in fixed point, on any device.
    backend = "python" if z.dtype in HALF else choose_backend(z.device.type, z.dtype)
    if backend == "python":
        raise RuntimeError(
            f"memory='reversible' needs the compiled kernels, and there are none for {z.dtype} on "
            f"{z.device.type} here; memory='checkpoint' runs without them"
        )
    return backend == "vector"


def forward(
    z: Tensor, states: States, weights: Weights, *, record: bool = False, save: bool = False,
    resets: Tensor | None = None,
) -> tuple[Pass, Tensor, Tensor]:  # fmt: skip
    """Run the recurrence in fixed point.

    On a GPU the host waits once, to read whether a value left the range and how many words there
    are, so this cannot be captured in a CUDA graph. With ``record``, room for all words that the
    steps may push is allocated until then: 2, 4 or 10 bytes for each number of z (identity,
    leaky_relu, relu), and 16 for each unit and reset; for every sequence as for the one with the
    most resets, whose number is waited for, too.

    Args:
        z: (T, B, H).
        states: before the first step.
        weights: of the layer.
        record: whether to return what is forgotten.
        save: whether to return the values of f, which the gradient needs.
        resets: (T, B) bool, where h and c of a sequence are set to 0 before the step; ``record``
            keeps what they were.

    Returns:
        The pass (``values`` empty without ``save``), and the words and counts that were pushed,
        empty without ``record``.

    Raises:
        RangeError: a value left the range.
        TypeError, ValueError: ``resets`` do not fit z.
    """
    check_resets(resets, tuple(z.shape[:-1]), z.device)
    vectorize = _vectorize(z)
    out, h, c, s, words, counts, values, bad_step = torch.ops.irevrnn.fixed_scan(
        z, *states, *weights._arguments(), record, save, vectorize, resets
    )
    if (step := bad_step.item()) >= 0:
        raise RangeError(int(step))
    return Pass(out, values, states, States(h, c, s)), words, counts


def inverse(
    z: Tensor, states: States, buffer: Buffer, weights: Weights, resets: Tensor | None = None
) -> tuple[Pass, Buffer]:
    """Run the inverse recurrence from the states after the last step. Waits for no device.

    Args:
        z, weights, resets: as given to :func:`forward`.
        states: after the last step.
        buffer: the words that were pushed.

    Returns:
        The pass, and what is left of ``buffer``; a negative count says that more words were asked
        for than there were.
    """
    check_resets(resets, tuple(z.shape[:-1]), z.device)
    vectorize = _vectorize(z)
    out, h, c, s, counts, values = torch.ops.irevrnn.fixed_unscan(
        z, *states, *buffer, *weights._arguments(), vectorize, resets
    )
    return Pass(out, values, States(h, c, s), states), buffer._replace(counts=counts)


class WithGradient(torch.autograd.Function):
    """A pass as a function of z, the initial states and the weights.

    Args:
        result: the pass, computed without gradients.
        nonlinearities: names of g and f.
        z, h_0, c_0, u, a, b: the tensors to differentiate with respect to. ``h_0`` and ``c_0``
            only carry their gradients: the pass has its own states.
        resets: as given to :func:`forward`.

    Returns:
        ``out`` (T, B, H), ``h_n`` and ``c_n`` (B, H).
    """

    @staticmethod
    def forward(
        ctx: Any, result: Pass, nonlinearities: tuple[str, str],
        z: Tensor, h_0: Tensor, c_0: Tensor, u: Tensor, a: Tensor, b: Tensor,
        resets: Tensor | None = None,
    ) -> Any:  # fmt: skip
        before = result.before.values(z.dtype)
        ctx.save_for_backward(result.out, result.values, *before, u, a, b, resets)
        ctx.set_materialize_grads(False)
        ctx.nonlinearities = nonlinearities
        return (result.out, *result.after.values(z.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        *saved, resets = ctx.saved_tensors
        vectorize = _vectorize(saved[0])
        results = torch.ops.irevrnn.scan_backward(
            *gradients, *saved, None, *ctx.nonlinearities, _ALL_SAVED, vectorize, resets
        )
        return None, None, *results, None
