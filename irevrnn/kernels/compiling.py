"""Mark what ``torch.compile`` must not trace.

Only code that is being compiled imports this module: the marks load ``torch._dynamo``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from irevrnn.kernels import backend
from irevrnn.kernels.observers import exports_to_onnx


@torch.compiler.assume_constant_result
def choose_backend(device: str, dtype: torch.dtype) -> str:
    """Choose when the graph is made; to ONNX goes the reference, as it does to a transform."""
    return "python" if exports_to_onnx() else backend.choose_backend(device, dtype)


@torch.compiler.disable(
    reason="irevrnn compiles with memory='recompute' or 'store', and sequences of one length: set "
    "model.memory = 'recompute', or leave out fullgraph=True to run the layer uncompiled"
)
def run_uncompiled(function: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    """Call a function outside of the graph."""
    return function(*inputs, **options)
