"""The strategies ``store`` and ``recompute``: all steps of a layer, then the next layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from irevrnn.functional import scan
from irevrnn.layer import IRevRNNLayer
from irevrnn.sequences import Packing
from irevrnn.strategies.stack import Stack, add_input, drop

Reverse = Callable[[Tensor], Tensor]


def run_layerwise(
    stack: Stack,
    memory: str,
    x: Tensor,
    h_0: Tensor,
    c_0: Tensor,
    masks: Tensor | None,
    packing: Packing | None,
    return_sequence: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run a stack over a sequence.

    Args:
        stack: the layers; its ``reverse_layers`` read each sequence from its end.
        memory: ``store`` or ``recompute``.
        x: (T, B, in), or (N, in) packed.
        h_0, c_0: (L * D, B, H) for D directions, the directions of a layer next to one another.
        masks: dropout masks between layers, (L - 1, B, D * H), or None.
        packing: of x, if it is packed.
        return_sequence: whether to return the output of all steps.

    Returns:
        The output, (T, B, D * H) or (N, D * H), or (B, D * H) of the last step; ``h_n`` and
        ``c_n``, (L * D, B, H).
    """
    reverse = _reverse(stack, packing)
    finals: list[tuple[Tensor, Tensor]] = []
    # The input is the cheapest tensor to copy: later ones are written in the order of time.
    x = last = x.contiguous()
    for index, layer in enumerate(stack.layers):
        x = drop(x, index, masks, packing)
        first = index * stack.directions
        run = partial(_run_layer, stack, memory, packing)
        out, last, c_n = run(layer, x, h_0[first], c_0[first], None)
        finals.append((last, c_n))
        if stack.reverse_layers:
            other_layer, second = stack.reverse_layers[index], first + 1
            other, h_n, c_n = run(other_layer, x, h_0[second], c_0[second], reverse)
            finals.append((h_n, c_n))
            last = torch.cat([last, other[-1].expand_as(last)], -1)  # not used if packed
            out = torch.cat([out, other], -1)
        x, last = add_input(stack, index, x, out, last, packing)
    h_n, c_n = (torch.stack(each) for each in zip(*finals, strict=True))
    if return_sequence:
        return x, h_n, c_n
    return (last if packing is None else x[packing.last_rows]), h_n, c_n


def _run_layer(
    stack: Stack,
    memory: str,
    packing: Packing | None,
    layer: IRevRNNLayer,
    x: Tensor,
    h_0: Tensor,
    c_0: Tensor,
    reverse: Reverse | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run a layer in one direction; return its output, ``h_n`` and ``c_n``."""
    z = layer(x)
    out, h_n, c_n = scan(
        z if reverse is None else reverse(z),
        h_0,
        c_0,
        layer.recurrent_weight,
        layer.coupling_a,
        layer.coupling_b,
        stack.activation,
        stack.coupling_activation,
        memory,
        None if packing is None else packing.batch_sizes,
    )
    return (out if reverse is None else reverse(out)), h_n, c_n


def _reverse(stack: Stack, packing: Packing | None) -> Reverse:
    """Return the function that reverses every sequence in time."""
    if packing is None or not stack.reverse_layers:
        return partial(torch.flip, dims=(0,))
    return partial(torch.index_select, dim=0, index=packing.reversal())
