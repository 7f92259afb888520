"""Mark what ``torch.compile`` must not trace.

Only code that is being compiled imports this module: the marks load ``torch._dynamo``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from irevrnn.kernels import backend

#: It reads the environment and may build the kernels, when the graph is made.
choose_backend = torch.compiler.assume_constant_result(backend.choose_backend)


@torch.compiler.disable(
    reason="irevrnn compiles with memory='recompute' or 'store', and sequences of one length: set "
    "model.memory = 'recompute', or leave out fullgraph=True to run the layer uncompiled"
)
def run_uncompiled(function: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    """Call a function outside of the graph."""
    return function(*inputs, **options)
