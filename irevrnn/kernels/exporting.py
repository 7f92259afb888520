"""The recurrence as PyTorch's operator ``scan``, a prototype that ``torch.onnx.export`` knows.

Only code that is being exported imports this module: the operator loads ``torch._dynamo``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch._higher_order_ops.scan import scan


def scan_as_operator(
    step: Callable[..., tuple[Tensor, Tensor]], streams: Sequence[Tensor | None],
    h: Tensor, c: Tensor, resets: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Run ``step(h, c, *parts)`` over streams by PyTorch's operator, which is ``Scan`` in ONNX.

    A stream without steps of its own is (B, H) or None. Tensors that go into the graph of a step,
    or come out of it, must not share memory.
    """
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
