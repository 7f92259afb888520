"""ONNX for inference: the scans as an ONNX ``Scan`` over the cell.

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
    operators = torch.ops.irevrnn
    return {operators.scan.default: _scan, operators.selective_scan.default: _selective_scan}


def _scan(
    z: Any, h_0: Any, c_0: Any, u: Any, a: Any, b: Any, batch_sizes: Any = None,
    activation: str = "relu", coupling_activation: str = "tanh", interval: int = 0,
    vectorize: bool = False, resets: Any = None,
) -> tuple[Any, ...]:  # fmt: skip
    """Write ``irevrnn::scan`` in ONNX, without what it saves for a backward pass."""

    def step(body: _Body, h: Any, c: Any, z_t: Any) -> tuple[Any, Any]:
        p = body("Mul", u, h)
        for i in range(a.shape[0]):
            c = body("Add", c, body("Mul", body.row(a, i), body.activate(coupling_activation, p)))
            p = body("Add", p, body("Mul", body.row(b, i), body.activate(coupling_activation, c)))
        return body.activate(activation, body("Add", z_t, p)), c

    return _written(step, h_0, c_0, [z], resets, batch_sizes)


def _selective_scan(
    z: Any, h_0: Any, c_0: Any, turns: Any, batch_sizes: Any = None, interval: int = 0,
    vectorize: bool = False, resets: Any = None,
) -> tuple[Any, ...]:  # fmt: skip
    """Write ``irevrnn::selective_scan`` in ONNX, likewise."""
    moving = [len(x.shape) == 3 for x in turns]

    def step(body: _Body, h: Any, c: Any, z_t: Any, *of_steps: Any) -> tuple[Any, Any]:
        parts = iter(of_steps)
        turn = [next(parts) if moves else x for x, moves in zip(turns, moving, strict=True)]
        cosine, sine = body("Cos", turn[0]), body("Sin", turn[0])
        p = body("Sub", body("Mul", cosine, h), body("Mul", sine, c))
        q = body("Add", body("Mul", sine, h), body("Mul", cosine, c))
        if len(turn) > 1:
            p, q = body("Mul", turn[1], p), body("Mul", turn[1], q)
        return body("Add", p, z_t), q

    streams = [z, *(x for x, moves in zip(turns, moving, strict=True) if moves)]
    return _written(step, h_0, c_0, streams, resets, batch_sizes)


class _Body:
    """The graph of a step, whose names none of the graph around it may have."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[Any] = []

    def __call__(self, operator: str, *inputs: Any, **attributes: Any) -> Any:
        """Apply an operator of ONNX."""
        import onnx_ir as ir

        output = ir.Value(name=f"{self.prefix}_{len(self.nodes)}")
        self.nodes.append(ir.node(operator, inputs, attributes, outputs=[output]))
        return output

    def activate(self, name: str, x: Any) -> Any:
        """Apply a nonlinearity."""
        operator, attributes = get_activation(name).onnx
        if operator == "LeakyRelu":  # which onnxruntime has in single precision alone
            slope = self("CastLike", self("Constant", value_float=attributes["alpha"]), x)
            return self("Max", x, self("Mul", slope, x))
        return self(operator, x, **attributes)

    def row(self, x: Any, i: int) -> Any:
        return self("Gather", x, self("Constant", value_int=i))


def _written(
    step: Callable[..., tuple[Any, Any]], h_0: Any, c_0: Any, streams: list[Any], resets: Any,
    batch_sizes: Any,
) -> tuple[Any, ...]:  # fmt: skip
    """Write a ``Scan`` of a step, a function of the body, h, c and a part of each stream."""
    import onnx_ir as ir
    from onnxscript import evaluator

    if batch_sizes is not None:
        raise ValueError("packed sequences have no ONNX form: export the model with padded input")
    body = _Body(f"{streams[0].name}_step")

    def given(name: str, shape: Any, dtype: Any) -> Any:
        text = f"{body.prefix}_{name}"
        return ir.Value(name=text, shape=ir.Shape(shape), type=ir.TensorType(dtype))

    names = ["h", "c", "z_t", "angle", "decay"][: 2 + len(streams)]
    h, c, *parts = inputs = [given(name, h_0.shape, streams[0].dtype) for name in names]
    if resets is not None:
        streams = [*streams, resets]
        reset = given("reset", h_0.shape[:1], resets.dtype)
        inputs.append(reset)
        of_sequence = body("Unsqueeze", reset, body("Constant", value_ints=[1]))
        zero = body("CastLike", body("Constant", value_float=0.0), h)
        h, c = (body("Where", of_sequence, zero, x) for x in (h, c))
    h, c = step(body, h, c, *parts)
    outputs = [body("Identity", x) for x in (h, c, h)]
    graph = ir.Graph(inputs, outputs, nodes=body.nodes, name=f"{body.prefix}_body")
    attributes: Any = {"body": graph, "num_scan_inputs": len(streams)}
    node = ir.node("Scan", [h_0, c_0, *streams], attributes, num_outputs=3)
    # onnxscript's own Scan would have a single output, so the node goes straight into the graph.
    recorder: Any = evaluator.default()
    recorder.nodes.append(node)
    h_n, c_n, out = node.outputs
    return out, h_n, c_n
