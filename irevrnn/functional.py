"""The recurrence as a function: :func:`scan`, with its checks and its choice of implementation."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from irevrnn import reference
from irevrnn.activations import get_activation
from irevrnn.backend import choose_backend
from irevrnn.input_checks import check_batch_sizes, check_dense, check_resets
from irevrnn.observers import transformed
from irevrnn.ops import HALF, NOTHING_SAVED, run_scan
from irevrnn.strategies.rules import OF_A_LAYER, SEGMENT, check_strategy


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
    batch_sizes: Tensor | None = None,
    resets: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the reversible, independently recurrent cell over a sequence (equation ``eq:cell``).

    Each unit mixes its decayed output with its cell state through R additive couplings::

        p = u * h_{t-1};  c = c_{t-1}
        for i = 1..R:   c = c + a_i * f(p);   p = p + b_i * f(c)
        h_t = g(z_t + p)

    The recurrence without couplings (R = 0) is IndRNN (Li et al., 2018).

    Args:
        z: input projection of every step, (T, B, H) with T at least 1. Need not be contiguous; a
            contiguous z is not copied. With bfloat16 and float16, everything is computed in float32
            (on the CPU also saved), and the results are rounded.
        h_0, c_0: initial output and cell state, (B, H); where z is bfloat16 or float16, they may be
            float32, and so are ``h_n`` and ``c_n`` then.
        u: recurrent weights, (H,).
        a, b: coupling weights, (R, H).
        activation: output nonlinearity g, one of ``relu``, ``tanh``, ``sigmoid``, ``leaky_relu``
            (slope 1/4), ``identity``.
        coupling_activation: coupling nonlinearity f, from the same list.
        memory: ``"recompute"`` saves the output, and c every 16 steps, for the backward pass;
            ``"store"`` saves every intermediate value. Both give the same gradient. The other
            strategies work on a whole stack: :class:`irevrnn.IRevRNN` has them.
        batch_sizes: for sequences of different length, packed as in PyTorch's ``PackedSequence``:
            (T,) int64 on the CPU, the number of sequences that have each step, at most B and never
            rising. z is then (N, H) with N their sum, the longest sequence first.
        resets: where sequences begin anew: bool, (T, B), or (N,) packed like z. Where it is true,
            h and c of the sequence are set to 0 before the step; in the first step, this discards
            ``h_0`` and ``c_0``. Results and gradients are those of the pieces run one by one from
            states of 0; no gradient passes a reset, not even one of inf or NaN.

    Returns:
        ``out`` with h of every step, of the shape of z; ``h_n`` (B, H) and ``c_n`` (B, H), the
        states after the last step of each sequence.

    Raises:
        TypeError: an argument is not a floating-point tensor, ``resets`` not a bool one, or
            ``batch_sizes`` no tensor.
        ValueError: a shape, dtype, device, activation or strategy does not fit.
        RuntimeError: IREVRNN_BACKEND asks for kernels that cannot run.
        NotImplementedError: forward-mode differentiation, through the compiled kernels.
    """
    named = {"z": z, "h_0": h_0, "c_0": c_0, "u": u, "a": a, "b": b}
    _check_tensors(named)
    _check_shapes(named, batch_sizes)
    check_resets(resets, tuple(z.shape[:-1]), z.device)
    get_activation(activation)
    get_activation(coupling_activation, "coupling_activation")
    if check_strategy(memory) not in OF_A_LAYER:
        raise ValueError(
            f"memory={memory!r} works on a whole stack: use IRevRNN; scan takes store or recompute"
        )
    options = activation, coupling_activation
    return scan_checked(z, (h_0, c_0, u, a, b), options, memory, batch_sizes, resets)


def scan_checked(
    z: Tensor,
    rest: tuple[Tensor, ...],
    options: tuple[str, str],
    memory: str = "recompute",
    batch_sizes: Tensor | None = None,
    resets: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run :func:`scan` without its checks, which take longer than a single step.

    Args:
        rest: h_0, c_0, u, a, b.
        options: names of g and f.
        z, memory, batch_sizes, resets: as for :func:`scan`.
    """
    if z.dtype not in HALF:
        return _run(z, batch_sizes, resets, rest, options, memory)
    wide = tuple(x.float() for x in rest)
    sequence = z if _has_kernel(z) else z.float()
    out, h_n, c_n = _run(sequence, batch_sizes, resets, wide, options, memory)
    return out.to(z.dtype), h_n.to(rest[0].dtype), c_n.to(rest[1].dtype)


def _has_kernel(z: Tensor) -> bool:
    """Return whether a kernel reads and writes half precision, which would be slow on the CPU."""
    return z.is_cuda and _backend(z) == "cuda"


def _backend(z: Tensor) -> str:
    if torch.compiler.is_compiling():
        from irevrnn import compiling

        return compiling.choose_backend(z.device.type, z.dtype)
    return choose_backend(z.device.type, z.dtype)


def _run(
    z: Tensor,
    batch_sizes: Tensor | None,
    resets: Tensor | None,
    rest: tuple[Tensor, ...],
    options: tuple[str, str],
    memory: str,
) -> tuple[Tensor, Tensor, Tensor]:
    backend = _backend(z)
    if backend == "python":
        # torch.func cannot look into a checkpoint; what a transform saves is its own affair.
        if memory == "store" or transformed():
            arguments: Any = (*rest, *options, batch_sizes, resets)
            return reference.scan(z, *arguments)
        return _recompute_reference(z, batch_sizes, resets, *rest, *options)
    interval = _interval(memory, z, *rest)
    vectorize = backend == "vector"
    out, h_n, c_n, _ = run_scan(z, *rest, batch_sizes, *options, interval, vectorize, resets)
    return out, h_n, c_n


def _interval(memory: str, *tensors: Tensor) -> int:
    """Return the steps between two saved cell states; 0 saves everything."""
    differentiated = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    # A transform may hide that it differentiates; what torch.jit.trace records is run without
    # gradients to be checked, and with them afterwards.
    if not (differentiated or transformed() or torch.jit.is_tracing()):
        return NOTHING_SAVED
    if memory == "store":
        return 0
    # What an exported program saves would depend on the length: it is for inference alone.
    return NOTHING_SAVED if torch.compiler.is_exporting() else SEGMENT


def _recompute_reference(
    z: Tensor, batch_sizes: Tensor | None, resets: Tensor | None, h: Tensor, c: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the reference with ``recompute``: one checkpoint for each segment."""
    outputs = []
    for part, sizes, of_part in _segments(z, batch_sizes, resets):
        out, h, c = checkpoint(
            reference.scan, part, h, c, *rest, sizes, of_part, use_reentrant=False,
            preserve_rng_state=False,
        )  # fmt: skip
        outputs.append(out)
    return torch.cat(outputs), h, c


def _segments(
    z: Tensor, batch_sizes: Tensor | None, resets: Tensor | None
) -> Iterator[tuple[Tensor, Tensor | None, Tensor | None]]:
    sizes: Any = repeat(None) if batch_sizes is None else batch_sizes.split(SEGMENT)
    rows: Any = SEGMENT if batch_sizes is None else [int(part.sum()) for part in sizes]
    split_resets: Any = repeat(None) if resets is None else resets.split(rows)
    yield from zip(z.split(rows), sizes, split_resets, strict=False)


def _check_tensors(named: dict[str, Tensor]) -> None:
    z = named["z"]
    for name, x in named.items():
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor; got {type(x).__name__}")
        if not x.is_floating_point():
            raise TypeError(f"{name} must be of a floating-point dtype; got {x.dtype}")
        check_dense(name, x)
        wide = name in ("h_0", "c_0") and x.dtype == torch.float32
        if x.dtype != z.dtype and not (wide and z.dtype in HALF):
            raise ValueError(f"{name} must have the dtype of z, {z.dtype}; got {x.dtype}")
        if x.device != z.device:
            raise ValueError(f"{name} must be on the device of z, {z.device}; got {x.device}")


def _check_shapes(named: dict[str, Tensor], batch_sizes: Tensor | None) -> None:
    z, h_0, a = (named[name] for name in ("z", "h_0", "a"))
    if batch_sizes is None:
        if z.dim() != 3:
            raise ValueError(f"z must be (T, B, H); got shape {tuple(z.shape)}")
        if z.shape[0] == 0:
            raise ValueError(f"z must have at least one step; got shape {tuple(z.shape)}")
        batch = z.shape[1]
    else:
        if z.dim() != 2:
            raise ValueError(f"z must be (N, H) with batch_sizes; got shape {tuple(z.shape)}")
        check_batch_sizes(batch_sizes, len(z), h_0.shape[0] if h_0.dim() == 2 else None)
        batch = h_0.shape[0] if h_0.dim() == 2 else int(batch_sizes[0])
    hidden = z.shape[-1]
    if a.dim() != 2:
        raise ValueError(f"a must be (R, H) with H = {hidden}; got shape {tuple(a.shape)}")
    state, weight = ("(B, H)", (batch, hidden)), ("(R, H)", (len(a), hidden))
    wanted = {"h_0": state, "c_0": state, "u": ("(H,)", (hidden,)), "a": weight, "b": weight}
    for name, (symbols, shape) in wanted.items():
        if tuple(named[name].shape) != shape:
            raise ValueError(
                f"{name} must be {symbols} = {shape} for z of shape {tuple(z.shape)}; "
                f"got shape {tuple(named[name].shape)}"
            )
