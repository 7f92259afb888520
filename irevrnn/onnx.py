"""ONNX for inference: the operator ``irevrnn::scan`` as an ONNX ``Scan`` over the cell.

Needs ``pip install '.[onnx]'``, in a clone.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from irevrnn.kernels.activations import get_activation
from irevrnn.kernels.ops import HALF, load_operators
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
        ImportError, RuntimeError: what :func:`translations` raises.
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
    table = translations()
    with torch.no_grad():
        torch.onnx.export(model, args, path, dynamo=True, custom_translation_table=table, **options)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return the ``custom_translation_table`` by which ``torch.onnx.export`` writes the operator.

    Raises:
        ImportError: the extra ``onnx`` is missing.
        RuntimeError: the C++ kernels, which register the operator, could not be built.
    """
    if importlib.util.find_spec("onnxscript") is None:
        raise ImportError("ONNX export needs onnxscript: pip install '.[onnx]' in a clone")
    if not load_operators():
        raise RuntimeError("ONNX export needs the compiled kernels, which could not be built here")
    return {torch.ops.irevrnn.scan.default: _scan}


def _scan(
    z: Any, h_0: Any, c_0: Any, u: Any, a: Any, b: Any, batch_sizes: Any = None,
    activation: str = "relu", coupling_activation: str = "tanh", interval: int = 0,
    vectorize: bool = False, resets: Any = None,
) -> tuple[Any, ...]:  # fmt: skip
    """Write ``irevrnn::scan`` in ONNX, without what it saves for a backward pass."""
    import onnx_ir as ir
    from onnxscript import evaluator

    if batch_sizes is not None:
        raise ValueError("packed sequences have no ONNX form: export the model with padded input")
    step = _step(z, h_0, u, a, b, activation, coupling_activation, resets)
    sequences = [z] if resets is None else [z, resets]
    attributes = {"body": step, "num_scan_inputs": len(sequences)}
    node = ir.node("Scan", [h_0, c_0, *sequences], attributes, num_outputs=3)
    # onnxscript's own Scan would have a single output, so the node goes straight into the graph.
    recorder: Any = evaluator.default()
    recorder.nodes.append(node)
    h_n, c_n, out = node.outputs
    return out, h_n, c_n


def _step(
    z: Any, h_0: Any, u: Any, a: Any, b: Any, activation: str, coupling: str, resets: Any
) -> Any:
    """Return a step as the body of a ``Scan``: (h, c, z_t, resets if any) to (h_t, c_t, h_t)."""
    import onnx_ir as ir

    nodes: list[ir.Node] = []
    prefix = f"{z.name}_step"  # a body must not use the names of the graph around it

    def apply(operator: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        output = ir.Value(name=f"{prefix}_{len(nodes)}")
        nodes.append(ir.node(operator, inputs, attributes, outputs=[output]))
        return output

    def nonlinearity(name: str, x: ir.Value) -> ir.Value:
        operator, attributes = get_activation(name).onnx
        if operator == "LeakyRelu":  # which onnxruntime has in single precision alone
            slope = apply("CastLike", apply("Constant", value_float=attributes["alpha"]), x)
            return apply("Max", x, apply("Mul", slope, x))
        return apply(operator, x, **attributes)

    def given(name: str, shape: Any, dtype: Any) -> ir.Value:
        return ir.Value(name=f"{prefix}_{name}", shape=ir.Shape(shape), type=ir.TensorType(dtype))

    def row(x: ir.Value, i: int) -> ir.Value:
        return apply("Gather", x, apply("Constant", value_int=i))

    h, c, z_t = inputs = [given(name, h_0.shape, z.dtype) for name in ("h", "c", "z_t")]
    if resets is not None:
        reset = given("reset", h_0.shape[:1], resets.dtype)
        inputs.append(reset)
        of_sequence = apply("Unsqueeze", reset, apply("Constant", value_ints=[1]))
        zero = apply("CastLike", apply("Constant", value_float=0.0), z_t)
        h, c = (apply("Where", of_sequence, zero, x) for x in (h, c))
    p = apply("Mul", u, h)
    for i in range(a.shape[0]):
        c = apply("Add", c, apply("Mul", row(a, i), nonlinearity(coupling, p)))
        p = apply("Add", p, apply("Mul", row(b, i), nonlinearity(coupling, c)))
    h_t = nonlinearity(activation, apply("Add", z_t, p))
    outputs = [apply("Identity", x) for x in (h_t, c, h_t)]
    return ir.Graph(inputs, outputs, nodes=nodes, name=f"{prefix}_body")
