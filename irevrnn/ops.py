"""The registered operators ``torch.ops.irevrnn.scan`` and ``scan_backward``.

``csrc/`` holds their schema, their CPU kernels, and the autograd formula that ties the two
together. Here are the shapes they return (fake tensors, for ``torch.compile``), the second
derivative, and both formulas as the transforms of ``torch.func`` take them. :func:`run_scan` is how
the library calls them.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from irevrnn import ensembles, reference
from irevrnn.jit import build

#: The interval of a scan that no backward pass follows.
NOTHING_SAVED = -1
#: What sequences may be of beside the dtype of their states, which are float32 then.
HALF = (torch.bfloat16, torch.float16)


@cache
def load_operators() -> bool:
    """Build the C++ extension on first use and register everything; False if it cannot be built."""
    if not build.load():
        return False
    torch.library.register_fake("irevrnn::scan", _scan_fake)
    torch.library.register_fake("irevrnn::scan_backward", _scan_backward_fake)
    torch.library.register_autograd(
        "irevrnn::scan_backward", _second_backward, setup_context=_keep_for_second_backward
    )
    torch.library.register_vmap("irevrnn::scan", _Scan.vmap)
    torch.library.register_vmap("irevrnn::scan_backward", _ScanBackward.vmap)
    return True


def load_cuda_operators() -> str:
    """Register the CUDA kernels beside those of the CPU, building them where the cache has none.

    Returns:
        Why that cannot be done; empty if it was.
    """
    if not load_operators():
        return "the operators are registered by the C++ kernels, which cannot be built"
    from irevrnn.jit import cuda as cuda  # most processes never need it

    return cuda.load()


def transformed() -> bool:
    """Whether a transform of ``torch.func`` is at work."""
    return torch._C._are_functorch_transforms_active()  # as torch.autograd.Function asks


def run_scan(*arguments: Any) -> tuple[Tensor, ...]:
    """Run ``irevrnn::scan`` in the form that suits the moment.

    The operator brings its formula along, in C++ (``csrc/scan_autograd.cpp``). The transforms of
    ``torch.func`` do not take such a formula, only an ``autograd.Function`` in Python.

    Raises:
        NotImplementedError: forward-mode differentiation.
    """
    if has_tangent(*arguments):
        _no_forward_mode(None)
    if traced() or not transformed():
        return torch.ops.irevrnn.scan.default(*arguments)
    return _Scan.apply(*arguments)


def traced() -> bool:
    """Whether PyTorch only records what is done, to compile or export it."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def has_tangent(*arguments: Any) -> bool:
    """Whether forward-mode differentiation goes through one of these."""
    if forward_ad._current_level < 0:  # as unpack_dual asks, for each tensor
        return False
    return any(forward_ad.unpack_dual(x).tangent is not None for x in _tensors(arguments))


def _tensors(arguments: tuple[Any, ...]) -> Iterator[Tensor]:
    return (x for x in arguments if isinstance(x, Tensor))


def _no_forward_mode(ctx: Any, *tangents: Any) -> Any:
    raise NotImplementedError(
        "the compiled scan has no forward-mode derivative (jvp, jacfwd, hessian); use reverse mode "
        "(vjp, jacrev), or set IREVRNN_BACKEND=python and memory='store'"
    )


def _run_scan_backward(*arguments: Any) -> tuple[Tensor, ...]:
    run = torch.ops.irevrnn.scan_backward.default if traced() else _ScanBackward.apply
    return run(*arguments)


def saved_shape(
    z: Tensor, h_0: Tensor, batch_sizes: Tensor | None, couplings: int, interval: int
) -> tuple[int, ...]:
    """Shape of what the forward kernel holds beside its output.

    It is of the dtype of the states. Where that of z has half their precision, the output is
    rounded, and h is saved wherever c or the values of a step are.

    Args:
        z: (T, B, H), or (N, H) packed.
        h_0: (B, H).
        batch_sizes: (T,), sequences at each step of a packed z.
        couplings: R.
        interval: 0 keeps f(p) and f(c) of every coupling and step; K > 0 keeps c every K steps,
            except the first, which is the caller's c_0; :data:`NOTHING_SAVED` keeps nothing.
    """
    steps = z.shape[0] if batch_sizes is None else batch_sizes.shape[0]
    outputs = int(_is_half(z))
    if interval == NOTHING_SAVED:
        return 0, *h_0.shape
    if interval > 0:
        return (1 + outputs) * ((steps + interval - 1) // interval - 1), *h_0.shape
    values = 2 * couplings + outputs
    if batch_sizes is None:
        return steps, values, *h_0.shape
    return values * z.shape[0], z.shape[1]


def _is_half(sequence: Tensor) -> bool:
    """Whether it has half the precision of its states."""
    return sequence.dtype in HALF


def _scan_fake(
    z: Tensor, h_0: Tensor, c_0: Tensor, u: Tensor, a: Tensor, b: Tensor,
    batch_sizes: Tensor | None,
    activation: str, coupling_activation: str, interval: int, vectorize: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    out = z.new_empty(z.shape)
    saved = h_0.new_empty(saved_shape(z, h_0, batch_sizes, a.shape[0], interval))
    return out, h_0.new_empty(h_0.shape), c_0.new_empty(c_0.shape), saved


def _scan_backward_fake(
    grad_out: Tensor | None, grad_h_n: Tensor | None, grad_c_n: Tensor | None,
    out: Tensor, saved: Tensor, h_0: Tensor, c_0: Tensor, u: Tensor, a: Tensor, b: Tensor,
    batch_sizes: Tensor | None,
    activation: str, coupling_activation: str, interval: int, vectorize: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    return tuple(x.new_empty(x.shape) for x in (out, h_0, c_0, u, a, b))


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """What ``scan_autograd.cpp`` keeps, and why."""
    z, h_0, c_0, u, a, b, batch_sizes, *ctx.options = inputs
    out, _, _, saved = output
    ctx.save_for_backward(z if _is_half(z) else out, saved, h_0, c_0, u, a, b, batch_sizes)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *gradients_of_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
    grad_out, grad_h_n, grad_c_n, _ = gradients_of_outputs
    gradients = _run_scan_backward(grad_out, grad_h_n, grad_c_n, *ctx.saved_tensors, *ctx.options)
    return *gradients, None, None, None, None, None


def _keep_for_second_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, activation, coupling_activation, _, _ = inputs
    ctx.options = activation, coupling_activation
    ctx.save_for_backward(*tensors)


def _second_backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
    """Differentiate the reference's gradient, which has derivatives of every order.

    Nothing flows back into ``saved``: it follows from the other inputs, as the reference has it.
    """
    *upstream, out, _, h_0, c_0, u, a, b, batch_sizes = ctx.saved_tensors
    shapes = (out, h_0, c_0)
    arriving = [
        torch.zeros_like(x) if g is None else g for g, x in zip(upstream, shapes, strict=True)
    ]
    activation, coupling_activation = ctx.options
    backward = partial(
        _backward_from_z if _is_half(out) else reference.scan_backward,
        activation=activation,
        coupling_activation=coupling_activation,
        batch_sizes=batch_sizes,
    )
    pull_back: Any
    _, pull_back, *_ = torch.func.vjp(backward, *arriving, out, h_0, c_0, u, a, b)
    *of_arriving, of_out, of_h_0, of_c_0, of_u, of_a, of_b = pull_back(gradients)
    of_upstream = [None if g is None else x for g, x in zip(upstream, of_arriving, strict=True)]
    no_options = (None,) * 5
    return *of_upstream, of_out, None, of_h_0, of_c_0, of_u, of_a, of_b, *no_options


def _backward_from_z(
    grad_out: Tensor, grad_h_n: Tensor, grad_c_n: Tensor, z: Tensor, *rest: Tensor,
    activation: str, coupling_activation: str, batch_sizes: Tensor | None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """The reference's gradient where z has half the precision of the states."""

    def run(z: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        options: Any = (*rest, activation, coupling_activation)
        if batch_sizes is None:
            out, h_n, c_n = reference.scan(z.float(), *options)
        else:
            out, h_n, c_n = reference.scan_packed(z.float(), batch_sizes, *options)
        return out.to(z.dtype), h_n, c_n

    pull_back: Any
    _, pull_back, *_ = torch.func.vjp(run, z, *rest)
    return tuple(pull_back((grad_out, grad_h_n, grad_c_n)))


class _Scan(torch.autograd.Function):
    """``irevrnn::scan`` as transforms take it."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        with torch._C._AutoDispatchBelowAutograd():  # past the registered formula
            return torch.ops.irevrnn.scan.default(*arguments)

    setup_context = staticmethod(_keep_for_backward)
    backward = staticmethod(_backward)
    jvp = staticmethod(_no_forward_mode)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> Any:
        return ensembles.run_folded(run_scan, info.batch_size, in_dims, arguments)


class _ScanBackward(torch.autograd.Function):
    """``irevrnn::scan_backward`` as transforms take it."""

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        with torch._C._AutoDispatchBelowAutograd():
            return torch.ops.irevrnn.scan_backward.default(*arguments)

    setup_context = staticmethod(_keep_for_second_backward)
    backward = staticmethod(_second_backward)
    jvp = staticmethod(_no_forward_mode)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> Any:
        return ensembles.run_folded(_run_scan_backward, info.batch_size, in_dims, arguments)
