"""ONNX for inference: ``torch.onnx.export``, with checks of the model.

The recurrence becomes an ONNX ``Scan`` over the cell. Needs ``pip install '.[onnx]'``, in a clone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from irevrnn.kernels.ops import HALF
from irevrnn.modules.base_stack import BaseStack
from irevrnn.strategies.rules import not_a_graph


def export(model: nn.Module, args: tuple[Any, ...], path: str | Path, **options: Any) -> None:
    """Write a model for inference to an ONNX file.

    Args:
        model: in evaluation mode, in float32 or float64, on the CPU, under ``store`` or
            ``recompute``.
        args: example inputs of the model, each a tensor of its own.
        path: of the file.
        options: of ``torch.onnx.export``, such as ``dynamic_shapes`` for any batch and length.

    Raises:
        ValueError: the model cannot be exported as it is, or one tensor stands for two inputs.
    """
    if model.training:
        raise ValueError("ONNX is for inference: call model.eval() first")
    for name, module in model.named_modules():
        if isinstance(module, BaseStack) and (reason := not_a_graph(module.memory, False)):
            raise ValueError(f"{name or 'model'} cannot be exported: {reason}")
    inputs = [x for x in tree_leaves((args, options.get("kwargs"))) if isinstance(x, torch.Tensor)]
    if len({*map(id, inputs)}) < len(inputs):  # PyTorch would make one input of the two
        raise ValueError("two inputs are the same tensor: give each input its own")
    for tensor in (*model.parameters(), *model.buffers(), *inputs):
        if tensor.dtype in HALF:  # onnxruntime refuses the file, or crashes
            raise ValueError(
                f"ONNX export is for float32 and float64; got a tensor of {tensor.dtype}: call "
                "model.float() first, and give inputs in float32"
            )
    with torch.no_grad():
        torch.onnx.export(model, args, path, dynamo=True, **options)
