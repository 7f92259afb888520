"""The cell in plain PyTorch, which every kernel is tested against.

Short enough to be read beside the paper, which names these functions in its equations. Shapes:
``T`` steps, batch ``B``, ``H`` hidden units, ``R`` couplings. Any floating dtype, any device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from irevrnn.kernels.activations import get_activation
from irevrnn.kernels.observers import exports_to_onnx


def couple(
    p: Tensor, c: Tensor, a: Tensor, b: Tensor, coupling_activation: str = "tanh"
) -> tuple[Tensor, Tensor]:
    """Apply the R additive couplings a and b, (R, H), to p and c (equation ``eq:coupling``)."""
    f = get_activation(coupling_activation, "coupling_activation").function
    for a_i, b_i in zip(a, b, strict=True):
        c = c + a_i * f(p)
        p = p + b_i * f(c)
    return p, c


def uncouple(
    p: Tensor, c: Tensor, a: Tensor, b: Tensor, coupling_activation: str = "tanh"
) -> tuple[Tensor, Tensor]:
    """Invert :func:`couple`: subtract the same steps in reverse order (equation ``eq:inverse``)."""
    f = get_activation(coupling_activation, "coupling_activation").function
    for a_i, b_i in zip(a.flip(0), b.flip(0), strict=True):
        p = p - b_i * f(c)
        c = c - a_i * f(p)
    return p, c


def step(
    z: Tensor, h: Tensor, c: Tensor, u: Tensor, a: Tensor, b: Tensor,
    activation: str = "relu", coupling_activation: str = "tanh",
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Run one time step of the cell (equation ``eq:cell``); return h and c after it."""
    g = get_activation(activation).function
    p, c = couple(u * h, c, a, b, coupling_activation)
    return g(z + p), c


def scan(
    z: Tensor, h_0: Tensor, c_0: Tensor, u: Tensor, a: Tensor, b: Tensor,
    activation: str = "relu", coupling_activation: str = "tanh",
    batch_sizes: Tensor | None = None, resets: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Run the cell over sequences, as :func:`irevrnn.scan`; autograd makes it textbook BPTT."""
    rows: Any = a, b
    if exports_to_onnx():  # they must not share memory there
        rows = [[row.clone() for row in x] for x in rows]

    def cell(h: Tensor, c: Tensor, z_t: Tensor) -> tuple[Tensor, Tensor]:
        return step(z_t, h, c, u, rows[0], rows[1], activation, coupling_activation)

    return _over_steps(cell, (z,), h_0, c_0, batch_sizes, resets)


def rotate(p: Tensor, q: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Turn the state (p, q) by an angle, in radians (equation ``eq:rotation``)."""
    cosine, sine = torch.cos(angle), torch.sin(angle)
    return cosine * p - sine * q, sine * p + cosine * q


def selective_scan(
    z: Tensor, h_0: Tensor, c_0: Tensor, angle: Tensor, decay: Tensor | None = None,
    batch_sizes: Tensor | None = None, resets: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Run selective oscillators over sequences (equation ``eq:selective``).

    Args:
        z, h_0, c_0, batch_sizes, resets: as for :func:`scan`, and so are the results.
        angle: by which each step turns the state, in radians: shaped like z, or (B, H) if all steps
            turn alike.
        decay: what h and c are multiplied by after that, from -1 to 1, likewise; nothing is
            forgotten if None.
    """

    def turn(
        h: Tensor, c: Tensor, z_t: Tensor, angle_t: Tensor, decay_t: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        p, q = rotate(h, c, angle_t)
        if decay_t is not None:
            p, q = decay_t * p, decay_t * q
        return p + z_t, q

    return _over_steps(turn, (z, angle, decay), h_0, c_0, batch_sizes, resets)


def scan_backward(
    grad_out: Tensor, grad_h_n: Tensor, grad_c_n: Tensor,
    out: Tensor, h_0: Tensor, c_0: Tensor, u: Tensor, a: Tensor, b: Tensor,
    activation: str = "relu", coupling_activation: str = "tanh",
    batch_sizes: Tensor | None = None, resets: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Compute the gradient of :func:`scan`, written out by hand (equation ``eq:gradient``).

    From gradients of what :func:`scan` returned, its ``out`` and its arguments, return those of z,
    h_0, c_0, u, a and b. The slopes follow from outputs. The compiled kernels compute the same.
    Autograd can differentiate this function, which gives them their second derivative.
    """
    coupling = get_activation(coupling_activation, "coupling_activation")
    f, f_slope = coupling.function, coupling.slope_from_output
    g_slope = get_activation(activation).slope_from_output
    steps, grad_steps = _steps(out, batch_sizes), _steps(grad_out, batch_sizes)
    step_resets = [None] * len(steps) if resets is None else _steps(resets, batch_sizes)
    before = [  # h_{t-1}
        _reset(_first(h, len(h_t)), reset)
        for h, h_t, reset in zip([h_0, *steps[:-1]], steps, step_resets, strict=True)
    ]

    values: list[list[tuple[Tensor, Tensor]]] = []  # f(p_{i-1}) and f(c_i), by step and coupling
    c = c_0
    for h, reset in zip(before, step_resets, strict=True):
        p, c, pairs = u * h, _reset(_first(c, len(h)), reset), []
        for a_i, b_i in zip(a, b, strict=True):
            f_p = f(p)
            c = c + a_i * f_p
            f_c = f(c)
            p = p + b_i * f_c
            pairs.append((f_p, f_c))
        values.append(pairs)

    grad_z: list[Tensor] = []
    grad_u = torch.zeros_like(u)
    grad_a, grad_b = [grad_u] * len(a), [grad_u] * len(b)
    carry, d_c = grad_h_n[:0], grad_c_n[:0]
    for t in reversed(range(len(steps))):
        carry, d_c = _joined(carry, grad_h_n, len(steps[t])), _joined(d_c, grad_c_n, len(steps[t]))
        d = (carry + grad_steps[t]) * g_slope(steps[t])
        grad_z.append(d)
        for i in reversed(range(len(a))):
            f_p, f_c = values[t][i]
            grad_b[i] = grad_b[i] + (d * f_c).sum(0)
            d_c = d_c + d * b[i] * f_slope(f_c)
            grad_a[i] = grad_a[i] + (d_c * f_p).sum(0)
            d = d + d_c * a[i] * f_slope(f_p)
        grad_u = grad_u + (d * before[t]).sum(0)
        carry, d_c = _reset(d * u, step_resets[t]), _reset(d_c, step_resets[t])
    grad_h_0, grad_c_0 = _joined(carry, grad_h_n, len(h_0)), _joined(d_c, grad_c_n, len(h_0))
    of_u, of_a, of_b = torch.stack([grad_u, *grad_a, *grad_b]).split([1, len(a), len(b)])
    return _join(grad_z[::-1], batch_sizes), grad_h_0, grad_c_0, of_u[0], of_a, of_b


def _over_steps(
    step: Callable[..., tuple[Tensor, Tensor]], streams: Sequence[Tensor | None],
    h: Tensor, c: Tensor, batch_sizes: Tensor | None, resets: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Run ``step(h, c, *parts)`` over parts of streams; return h of all steps, and h and c."""
    if exports_to_onnx() and batch_sizes is None:
        from irevrnn.kernels.exporting import scan_as_operator

        return scan_as_operator(step, streams, h, c, resets)
    z: Any = streams[0]
    parts = [*zip(*(_steps_of(x, z, batch_sizes) for x in streams), strict=True)]
    step_resets: Any = _steps(resets, batch_sizes) if resets is not None else [None] * len(parts)
    outputs = []
    for (z_t, *others), reset in zip(parts, step_resets, strict=True):
        h_t, c_t = (_reset(_first(x, len(z_t)), reset) for x in (h, c))
        h_t, c_t = step(h_t, c_t, z_t, *others)
        outputs.append(h_t)
        h, c = _joined(h_t, h, len(h)), _joined(c_t, c, len(c))
    return _join(outputs, batch_sizes), h, c


def _steps(x: Tensor, batch_sizes: Tensor | None) -> tuple[Tensor, ...]:
    """Split x into its steps: at once, as indexing would make autograd add up T full gradients."""
    return x.unbind(0) if batch_sizes is None else x.split(batch_sizes.tolist())


def _steps_of(x: Tensor | None, z: Tensor, batch_sizes: Tensor | None) -> list[Any]:
    """Split x into its steps; if it has none, each has that of its sequences."""
    if x is not None and x.shape == z.shape:
        return [*_steps(x, batch_sizes)]
    return [x if x is None else x[: len(z_t)] for z_t in _steps(z, batch_sizes)]


def _join(steps: list[Tensor], batch_sizes: Tensor | None) -> Tensor:
    """Join what :func:`_steps` split."""
    return torch.stack(steps) if batch_sizes is None else torch.cat(steps)


def _reset(x: Tensor, rows: Tensor | None) -> Tensor:
    """Set ``rows`` (B,) of x (B, H) to 0, whatever they were."""
    return x if rows is None else x.masked_fill(rows.unsqueeze(-1), 0)


def _first(x: Tensor, count: int) -> Tensor:
    """Return the first rows of x: of those sequences that have not ended."""
    return x if len(x) == count else x[:count]


def _joined(running: Tensor, ended: Tensor, count: int) -> Tensor:
    """Append the rows of sequences that have ended, up to ``count`` in all."""
    return running if len(running) == count else torch.cat([running, ended[len(running) : count]])
