"""What ``torch.compile`` must not trace, and what ``torch.onnx.export`` has to.

Only code that is being compiled or exported imports this module: it loads ``torch._dynamo``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from irevrnn.kernels import backend
from irevrnn.kernels.observers import exports_to_onnx


@torch.compiler.assume_constant_result
def choose_backend(device: str, dtype: torch.dtype) -> str:
    """Choose when the graph is made; to ONNX goes the reference, as it does to a transform."""
    return "transform" if exports_to_onnx() else backend.choose_backend(device, dtype)


@torch.compiler.disable(
    reason="irevrnn compiles with memory='recompute' or 'store', and sequences of one length: set "
    "model.memory = 'recompute', or leave out fullgraph=True to run the layer uncompiled"
)
def run_uncompiled(function: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    """Call a function outside of the graph."""
    return function(*inputs, **options)


def scan_as_operator(
    step: Callable[..., tuple[Tensor, Tensor]], streams: Sequence[Tensor | None],
    h: Tensor, c: Tensor, resets: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Run ``step(h, c, *parts)`` over streams by PyTorch's operator, which is ``Scan`` in ONNX.

    A stream without steps of its own is (B, H) or None. Tensors that go into the graph of a step,
    or come out of it, must not share memory.
    """
    from torch._higher_order_ops.scan import scan  # a prototype: others need not depend on it

    given = [*streams, None if resets is None else resets.unsqueeze(-1)]
    moving = [i for i, x in enumerate(given) if x is not None and x.dim() == 3]

    def run(state: tuple[Tensor, Tensor], parts: list[Tensor]) -> Any:
        now: list[Any] = list(given)
        for i, part in zip(moving, parts, strict=True):
            now[i] = part
        *now, reset = now
        h, c = state if reset is None else [x.masked_fill(reset, 0) for x in state]
        h, c = step(h, c, *now)
        return (h, c.clone()), h.clone()

    (h, c), out = scan(run, (h.clone(), c.clone()), [given[i] for i in moving])
    return out, h, c
