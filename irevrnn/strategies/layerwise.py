"""All steps of a layer before the next layer, in one or both directions: store and recompute."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from irevrnn.functional import scan
from irevrnn.packing import Packing
from irevrnn.strategies.chunkwise import Stack, run_layers

Turn = Callable[[Tensor], Tensor]


def run_whole(
    stack: Stack,
    x: Tensor,
    h_0: Tensor,
    c_0: Tensor,
    masks: Tensor | None,
    packing: Packing | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the stack over x.

    Args:
        stack: with its strategy; its ``reverse_layers`` run from the end of each sequence.
        x: (T, B, in), or (N, in) packed.
        h_0, c_0: (L * D, B, H) for D directions, a layer's directions behind one another.
        masks: dropout masks between layers, (L - 1, B, D * H), or None.
        packing: of x, if it is packed.

    Returns:
        Output (T, B, D * H) or (N, D * H), or (B, D * H) of the last step alone; ``h_n`` and
        ``c_n``, (L * D, B, H).
    """
    turn: Turn = partial(torch.flip, dims=(0,))
    if stack.reverse_layers and packing is not None:
        turn = partial(_select_rows, packing.reversal())
    finals: list[tuple[Tensor, Tensor]] = []

    def run_direction(layer: Any, x: Tensor) -> Tensor:
        z, backwards = layer(x), len(finals) % directions == 1
        out, h_n, c_n = scan(
            turn(z) if backwards else z,
            h_0[len(finals)],
            c_0[len(finals)],
            layer.recurrent_weight,
            layer.coupling_a,
            layer.coupling_b,
            stack.activation,
            stack.coupling_activation,
            stack.strategy,
            None if packing is None else packing.batch_sizes,
        )
        finals.append((h_n, c_n))
        return turn(out) if backwards else out

    directions = 2 if stack.reverse_layers else 1

    def run_layer(index: int, x: Tensor) -> tuple[Tensor, Tensor]:
        out = run_direction(stack.layers[index], x)
        last = finals[-1][0]
        if stack.reverse_layers:
            other = run_direction(stack.reverse_layers[index], x)
            last = torch.cat([last, other[-1].expand_as(last)], -1)  # unused if packed
            out = torch.cat([out, other], -1)
        return out, last

    # The input is the cheapest tensor to turn: later ones are written in the order of time.
    output, last = run_layers(stack, x.contiguous(), masks, packing, run_layer)
    h_n, c_n = (torch.stack(states) for states in zip(*finals, strict=True))
    return (output if stack.return_sequence else last), h_n, c_n


def _select_rows(rows: Tensor, y: Tensor) -> Tensor:
    return y.index_select(0, rows)
