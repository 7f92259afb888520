"""The recurrence as a function: :func:`scan`."""

from __future__ import annotations

import torch
from torch import Tensor

from irevrnn.kernels.activations import get_activation
from irevrnn.kernels.ops import HALF
from irevrnn.modules.checks import check_resets, check_tensor
from irevrnn.recurrences.oscillator import Weights
from irevrnn.strategies.rules import LAYERWISE, check_strategy


def scan(
    z: Tensor, h_0: Tensor, c_0: Tensor, u: Tensor, a: Tensor, b: Tensor,
    activation: str = "relu", coupling_activation: str = "tanh", memory: str = "recompute",
    batch_sizes: Tensor | None = None, resets: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Run the reversible, independently recurrent cell over a sequence (equation ``eq:cell``).

    Each unit mixes its decayed output with its cell state through R additive couplings::

        p = u * h_{t-1};  c = c_{t-1}
        for i = 1..R:   c = c + a_i * f(p);   p = p + b_i * f(c)
        h_t = g(z_t + p)

    The recurrence without couplings (R = 0) is IndRNN (Li et al., 2018).

    Args:
        z: input projection of every step, (T, B, H) with T at least 1; a contiguous z is not
            copied. With bfloat16 and float16, everything is computed and saved in float32, and the
            results are rounded.
        h_0, c_0: initial output and cell state, (B, H); where z is bfloat16 or float16, they may be
            float32, and so are ``h_n`` and ``c_n`` then.
        u: recurrent weights, (H,).
        a, b: coupling weights, (R, H).
        activation: output nonlinearity g, one of ``relu``, ``tanh``, ``sigmoid``, ``leaky_relu``
            (slope 1/4), ``identity``.
        coupling_activation: coupling nonlinearity f, from the same list.
        memory: ``"recompute"`` saves the output, and c every 16 steps, for the backward pass;
            ``"store"`` saves every intermediate value.
        batch_sizes: for sequences of different length, packed as in PyTorch's ``PackedSequence``:
            (T,) int64 on the CPU, the number of sequences that have each step, at most B and never
            rising. z is then (N, H) with N their sum, the longest sequence first.
        resets: where sequences begin anew: bool, (T, B), or (N,) packed like z. Where it is true,
            h and c of the sequence are set to 0 before the step, and no gradient passes.

    Returns:
        ``out`` with h of every step, of the shape of z; ``h_n`` (B, H) and ``c_n`` (B, H), the
        states after the last step of each sequence.
    """
    get_activation(activation)
    get_activation(coupling_activation, "coupling_activation")
    if check_strategy(memory) not in LAYERWISE:
        raise ValueError(
            f"memory={memory!r} works on a whole stack: use IRevRNN; scan takes store or recompute"
        )
    if not torch.compiler.is_compiling():
        _check(batch_sizes is not None, resets, z=z, h_0=h_0, c_0=c_0, u=u, a=a, b=b)
    weights = Weights(u, a, b, activation, coupling_activation)
    return weights.scan(z, (h_0, c_0), memory, batch_sizes, resets)


def _check(packed: bool, resets: Tensor | None, **tensors: Tensor) -> None:
    """Raise an error unless tensors fit each other: the reference would broadcast them."""
    for name, x in tensors.items():
        check_tensor(name, x)
    z, a = tensors["z"], tensors["a"]
    if z.dim() != (2 if packed else 3) or not len(z):
        wanted = "(N, H) with batch_sizes" if packed else "(T, B, H)"
        raise ValueError(f"z must be {wanted}, of a step at least; got shape {tuple(z.shape)}")
    hidden, couplings = z.shape[-1:], a.shape[:1]
    batch = tensors["h_0"].shape[:1] if packed else z.shape[1:2]
    wide = dict.fromkeys(("a", "b"), couplings + hidden)
    for name, shape in {"h_0": batch + hidden, "c_0": batch + hidden, "u": hidden, **wide}.items():
        x = tensors[name]
        if x.shape != shape or (x.dtype != z.dtype and z.dtype not in HALF):
            wanted = f"{z.dtype} of shape {tuple(shape)} for z of shape {tuple(z.shape)}"
            raise ValueError(f"{name} must be {wanted}; got {x.dtype} of shape {tuple(x.shape)}")
    if resets is not None:
        check_resets(resets, tuple(z.shape[:-1]))
