"""The registered operators ``torch.ops.irevrnn.scan`` and ``scan_backward``.

``csrc/`` holds their schema, their CPU kernels, and the autograd formula that ties the two
together. Here are the shapes they return (fake tensors, for ``torch.compile``), the second
derivative, and what the transforms of ``torch.func`` need. The library calls them by
:func:`run_scan`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from irevrnn import reference
from irevrnn.jit import build, cuda
from irevrnn.observers import PLAIN, sees_operators, traced, transformed

#: The interval of a scan that no backward pass follows.
NOTHING_SAVED = -1
#: Dtypes of sequences whose states are float32.
HALF = (torch.bfloat16, torch.float16)
_FLOAT32 = torch.float32
#: Whether :mod:`irevrnn.onnx` has told how ``torch.onnx.export`` writes the operators.
has_onnx_form = False


@build.once_per_process
def load_operators() -> bool:
    """Build the C++ kernels on first use and register the operators; return False if that fails."""
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
        The reason why that cannot be done, or an empty string.
    """
    if not load_operators():
        return "the C++ kernels, which register the operators, could not be built"
    return cuda.load()


def run_scan(*arguments: Any) -> tuple[Tensor, ...]:
    """Run ``irevrnn::scan``, under a transform of ``torch.func`` as an ``autograd.Function``.

    Transforms do not take the operator's own autograd formula, in ``csrc/scan_autograd.h``.

    Raises:
        NotImplementedError: forward-mode differentiation.
    """
    if has_tangent(*arguments):
        _no_forward_mode(None)
    if traced() or not transformed():
        return torch.ops.irevrnn.scan.default(*arguments)
    return _Scan.apply(*arguments)


def eager_float32(*tensors: Tensor) -> bool:
    """Return whether all tensors are plain float32 on the CPU, and no mode or transform is on."""
    if sees_operators() or has_tangent(*tensors):
        return False
    for t in tensors:  # a generator would take twice as long
        if type(t) not in PLAIN or t.dtype is not _FLOAT32 or not t.is_cpu:
            return False
    return True


def has_tangent(*arguments: Any) -> bool:
    """Return whether forward-mode differentiation goes through one of the arguments."""
    if forward_ad._current_level < 0:  # as unpack_dual asks, for each tensor
        return False
    tensors = (x for x in arguments if isinstance(x, Tensor))
    return any(forward_ad.unpack_dual(x).tangent is not None for x in tensors)


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
    """Return the shape of what the forward kernel saves beside its output, in the states' dtype.

    Where z has half their precision, the output is rounded, and h is saved wherever c or the values
    of a step are.

    Args:
        z: (T, B, H), or (N, H) packed.
        h_0: (B, H).
        batch_sizes: (T,), sequences at each step of a packed z.
        couplings: R.
        interval: 0 saves f(p) and f(c) of every coupling and step; K > 0 saves c every K steps,
            but for c_0, which the caller has; :data:`NOTHING_SAVED` saves nothing.
    """
    steps = z.shape[0] if batch_sizes is None else batch_sizes.shape[0]
    outputs = int(z.dtype in HALF)
    if interval == NOTHING_SAVED:
        return 0, *h_0.shape
    if interval > 0:
        return (1 + outputs) * ((steps + interval - 1) // interval - 1), *h_0.shape
    values = 2 * couplings + outputs
    if batch_sizes is None:
        return steps, values, *h_0.shape
    return values * z.shape[0], z.shape[1]


def _scan_fake(
    z: Tensor, h_0: Tensor, c_0: Tensor, u: Tensor, a: Tensor, b: Tensor,
    batch_sizes: Tensor | None,
    activation: str, coupling_activation: str, interval: int, vectorize: bool,
    resets: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    exporting = torch.compiler.is_exporting() and not has_onnx_form
    if exporting and torch.onnx.is_in_onnx_export():  # which loads the exporter
        raise ValueError(
            "torch.onnx.export does not know the operator irevrnn::scan: call irevrnn.onnx.export, "
            "or pass dynamo=True and custom_translation_table=irevrnn.onnx.translations()"
        )
    out = z.new_empty(z.shape)
    saved = h_0.new_empty(saved_shape(z, h_0, batch_sizes, a.shape[0], interval))
    return out, h_0.new_empty(h_0.shape), c_0.new_empty(c_0.shape), saved


def _scan_backward_fake(
    grad_out: Tensor | None, grad_h_n: Tensor | None, grad_c_n: Tensor | None,
    out: Tensor, saved: Tensor, h_0: Tensor, c_0: Tensor, u: Tensor, a: Tensor, b: Tensor,
    batch_sizes: Tensor | None,
    activation: str, coupling_activation: str, interval: int, vectorize: bool,
    resets: Tensor | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    return tuple(x.new_empty(x.shape) for x in (out, h_0, c_0, u, a, b))


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Save what ``scan_autograd.h`` does; the reasons are there."""
    z, *rest, activation, coupling_activation, interval, vectorize, resets = inputs
    ctx.options = activation, coupling_activation, interval, vectorize
    out, _, _, saved = output
    ctx.save_for_backward(z if z.dtype in HALF else out, saved, *rest, resets)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *gradients_of_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
    grad_out, grad_h_n, grad_c_n, _ = gradients_of_outputs
    *saved, resets = ctx.saved_tensors
    gradients = _run_scan_backward(grad_out, grad_h_n, grad_c_n, *saved, *ctx.options, resets)
    return *gradients, *(None,) * 6


def _keep_for_second_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, activation, coupling_activation, _, _, resets = inputs
    ctx.options = activation, coupling_activation
    ctx.save_for_backward(*tensors, resets)


def _second_backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
    """Differentiate the reference's gradient, which has derivatives of every order.

    Nothing flows back into ``saved``: it follows from the other inputs, as the reference has it.
    """
    *upstream, out, _, h_0, c_0, u, a, b, batch_sizes, resets = ctx.saved_tensors
    shapes = (out, h_0, c_0)
    grads = [torch.zeros_like(x) if g is None else g for g, x in zip(upstream, shapes, strict=True)]
    activation, coupling_activation = ctx.options
    backward = partial(
        _backward_from_z if out.dtype in HALF else reference.scan_backward,
        activation=activation,
        coupling_activation=coupling_activation,
        batch_sizes=batch_sizes,
        resets=resets,
    )
    vjp_fn: Any
    _, vjp_fn, *_ = torch.func.vjp(backward, *grads, out, h_0, c_0, u, a, b)
    *grad_upstream, of_out, of_h_0, of_c_0, of_u, of_a, of_b = vjp_fn(gradients)
    of_upstream = [None if g is None else x for g, x in zip(upstream, grad_upstream, strict=True)]
    no_options = (None,) * 6
    return *of_upstream, of_out, None, of_h_0, of_c_0, of_u, of_a, of_b, *no_options


def _backward_from_z(
    grad_out: Tensor, grad_h_n: Tensor, grad_c_n: Tensor, z: Tensor, *rest: Tensor,
    activation: str, coupling_activation: str, batch_sizes: Tensor | None, resets: Tensor | None,
) -> tuple[Tensor, ...]:  # fmt: skip
    """The reference's gradient where z has half the precision of the states."""

    def run(z: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        options: Any = (*rest, activation, coupling_activation, batch_sizes, resets)
        out, h_n, c_n = reference.scan(z.float(), *options)
        return out.to(z.dtype), h_n, c_n

    vjp_fn: Any
    _, vjp_fn, *_ = torch.func.vjp(run, z, *rest)
    return tuple(vjp_fn((grad_out, grad_h_n, grad_c_n)))


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
        return _run_folded(run_scan, info.batch_size, in_dims, arguments)


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
        return _run_folded(_run_scan_backward, info.batch_size, in_dims, arguments)


def _run_folded(
    operator: Callable[..., tuple[Tensor, ...]],
    members: int,
    in_dims: Sequence[int | None],
    arguments: Sequence[Any],
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """Run an operator once for all members of an ensemble: the rule of ``torch.func.vmap``.

    Units are independent of one another within a layer, so E scans over H units are one scan over
    E * H units. Members with resets of their own are run one by one.

    Args:
        operator: takes and returns tensors whose last dimension is that of the units, beside
            ``batch_sizes``, options and, last, ``resets``.
        members: E.
        in_dims: for each argument, the dimension of the ensemble, or None if all members share it.
        arguments: of the operator.

    Returns:
        The results with a dimension for the ensemble, and the index of that dimension in each.
    """
    if isinstance(arguments[-1], bool):  # the dispatcher has left out resets of None
        arguments, in_dims = (*arguments, None), (*in_dims, None)
    if in_dims[-1] is not None:
        runs = [
            operator(*(_member(x, i, dim) for x, dim in zip(arguments, in_dims, strict=True)))
            for i in range(members)
        ]
        results = tuple(torch.stack(ys) for ys in zip(*runs, strict=True))
        return results, (0,) * len(results)
    folded = [_fold(x, members, dim) for x, dim in zip(arguments, in_dims, strict=True)]
    results = tuple(y.unflatten(-1, (members, -1)) for y in operator(*folded))
    return results, tuple(y.dim() - 2 for y in results)


def _member(x: Any, index: int, dim: int | None) -> Any:
    return x if dim is None else x.select(dim, index)


def _fold(x: Any, members: int, dim: int | None) -> Any:
    """Reshape (..., E, ..., H), or (..., H) if all members share it, to (..., E * H)."""
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return x  # batch_sizes, resets and options, which all members share
    if dim is None:
        return x.unsqueeze(-2).expand(*x.shape[:-1], members, x.shape[-1]).flatten(-2)
    return x.movedim(dim, -2).flatten(-2)
