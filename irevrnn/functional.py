"""The recurrence as a function: :func:`scan`, with its checks and its choice of implementation."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from irevrnn import reference
from irevrnn.activations import get_activation
from irevrnn.backend import choose_backend
from irevrnn.memory import OF_A_LAYER, SEGMENT, check_strategy


def scan(
    z: Tensor,
    h_0: Tensor,
    c_0: Tensor,
    u: Tensor,
    a: Tensor,
    b: Tensor,
    activation: str = "relu",
    coupling_activation: str = "tanh",
    memory: str = "recompute",
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the reversible, independently recurrent cell over a sequence (equation ``eq:cell``).

    Each unit mixes its decayed output with its cell state through R additive couplings::

        p = u * h_{t-1};  c = c_{t-1}
        for i = 1..R:   c = c + a_i * f(p);   p = p + b_i * f(c)
        h_t = g(z_t + p)

    The recurrence without couplings (R = 0) is IndRNN (Li et al., 2018).

    Args:
        z: input drive of every step, (T, B, H) with T at least 1; float32 or float64 for the
            compiled kernels. Need not be contiguous; a contiguous z is not copied.
        h_0, c_0: initial output and cell state, (B, H).
        u: recurrent weights, (H,).
        a, b: coupling weights, (R, H).
        activation: output nonlinearity g, one of ``relu``, ``tanh``, ``sigmoid``, ``leaky_relu``
            (slope 1/4), ``identity``.
        coupling_activation: coupling nonlinearity f, from the same list.
        memory: ``"recompute"`` holds the output and c every 16 steps between forward and backward,
            ``"store"`` every intermediate. Both give the same gradient. The other strategies
            work on a whole stack: :class:`irevrnn.IRevRNN` has them.

    Returns:
        ``out`` (T, B, H) with h of every step, ``h_n`` (B, H) and ``c_n`` (B, H).

    Raises:
        TypeError: an argument is no floating-point tensor.
        ValueError: a shape, dtype, device, activation or strategy does not fit.
    """
    _check_tensors(z, h_0, c_0, u, a, b)
    get_activation(activation)
    get_activation(coupling_activation, "coupling_activation")
    if check_strategy(memory) not in OF_A_LAYER:
        raise ValueError(
            f"memory={memory!r} works on a whole stack: use IRevRNN; scan takes store or recompute"
        )
    options = (activation, coupling_activation)
    backend = choose_backend(z.device.type, z.dtype)
    if backend == "python":
        run = reference.scan if memory == "store" else _recompute_reference
        return run(z, h_0, c_0, u, a, b, *options)
    interval = _interval(memory, z, h_0, c_0, u, a, b)
    out, h_n, c_n, _ = torch.ops.irevrnn.scan(
        z, h_0, c_0, u, a, b, *options, interval, backend == "vector"
    )
    return out, h_n, c_n


def _interval(memory: str, *tensors: Tensor) -> int:
    """Steps between two kept cell states: 0 keeps everything, T keeps nothing."""
    if not (torch.is_grad_enabled() and any(x.requires_grad for x in tensors)):
        return tensors[0].shape[0]
    return 0 if memory == "store" else SEGMENT


def _recompute_reference(
    z: Tensor, h: Tensor, c: Tensor, u: Tensor, a: Tensor, b: Tensor, *options: str
) -> tuple[Tensor, Tensor, Tensor]:
    """``recompute`` for the reference: one checkpoint a segment."""
    outputs = []
    for segment in z.split(SEGMENT):
        out, h, c = checkpoint(
            reference.scan, segment, h, c, u, a, b, *options, use_reentrant=False
        )
        outputs.append(out)
    return torch.cat(outputs), h, c


def _check_tensors(z: Tensor, h_0: Tensor, c_0: Tensor, u: Tensor, a: Tensor, b: Tensor) -> None:
    named = {"z": z, "h_0": h_0, "c_0": c_0, "u": u, "a": a, "b": b}
    for name, x in named.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor; got {type(x).__name__}")
        if not x.is_floating_point():
            raise TypeError(f"{name} must be of a floating-point dtype; got {x.dtype}")
        if x.dtype != z.dtype:
            raise ValueError(f"{name} must have the dtype of z, {z.dtype}; got {x.dtype}")
        if x.device != z.device:
            raise ValueError(f"{name} must be on the device of z, {z.device}; got {x.device}")
    if z.dim() != 3:
        raise ValueError(f"z must be (T, B, H); got shape {tuple(z.shape)}")
    steps, batch, hidden = z.shape
    if steps == 0:
        raise ValueError(f"z must have at least one step; got shape {tuple(z.shape)}")
    couplings = a.shape[0] if a.dim() == 2 else 0
    wanted = {
        "h_0": (batch, hidden),
        "c_0": (batch, hidden),
        "u": (hidden,),
        "a": (couplings, hidden),
        "b": (couplings, hidden),
    }
    for name, shape in wanted.items():
        if tuple(named[name].shape) != shape:
            symbols = {"h_0": "(B, H)", "c_0": "(B, H)", "u": "(H,)"}.get(name, "(R, H)")
            raise ValueError(
                f"{name} must be {symbols} = {shape} for z of shape {tuple(z.shape)}; "
                f"got shape {tuple(named[name].shape)}"
            )
