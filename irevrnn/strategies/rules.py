"""Decide which strategy goes with which model, input and transform."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from irevrnn.kernels.observers import transformed
from irevrnn.kernels.ops import has_tangent

STRATEGIES = ("store", "recompute", "checkpoint", "reversible", "store_fixed", "auto")
LAYERWISE = ("store", "recompute")
CHUNKWISE = ("checkpoint", "reversible", "store_fixed")
IN_FIXED_POINT = ("reversible", "store_fixed")
#: What a budget can shape: which strategy, the length of chunks, or how many checkpoints are kept.
BUDGETED = ("auto", "checkpoint", "reversible")
#: The parameters of a block that make up its recurrence: u, a and b.
RECURRENCE = ("recurrent_weight", "coupling_a", "coupling_b")

#: The strategies that take transforms and second derivatives.
WHAT_CAN = "memory='store' and memory='recompute' can"


def check_strategy(memory: str) -> str:
    """Return ``memory`` if there is such a strategy, else raise a ValueError."""
    if memory not in STRATEGIES:
        raise ValueError(f"memory must be one of {', '.join(STRATEGIES)}; got {memory!r}")
    return memory


def check_budget(memory: str, memory_budget: float | str | None) -> None:
    """Raise a ValueError if a budget is missing, or given to a strategy that takes none."""
    if check_strategy(memory) == "auto" and memory_budget is None:
        raise ValueError("memory='auto' needs memory_budget, such as memory_budget='256MB'")
    if memory not in BUDGETED and memory_budget is not None:
        raise ValueError(
            f"memory_budget goes with memory='auto', 'checkpoint' and 'reversible' alone; got "
            f"memory={memory!r}"
        )


def unsupported_reason(stack: Any, memory: str, running: bool = True) -> str | None:
    """Return why a strategy cannot train a stack, and which one can; None if it can.

    ``running`` tells whether it is about to run, in the present mode of its modules.
    """
    if memory not in CHUNKWISE:
        return None
    if stack.reverse:
        return (
            f"bidirectional=True does not go with memory={memory!r}, which takes all layers "
            "through a chunk of steps at once; use memory='recompute' or 'store'"
        )
    for label, module in zip(stack.names, stack.modules, strict=True):
        if running and has_batch_statistics(module):
            return (
                f"memory={memory!r} cannot run with the batch norm of {label}, whose statistics "
                "run over all steps; use norm='layer', or memory='recompute'"
            )
        if any(getattr(each, "scale_grad_by_freq", False) for each in module.modules()):
            return (
                f"memory={memory!r} cannot run with scale_grad_by_freq=True in {label}, which "
                "counts tokens over all steps; use memory='recompute'"
            )
        cached = running and torch.is_grad_enabled() and parametrize._cache_enabled
        if cached and any(map(parametrize.is_parametrized, module.modules())):
            return (  # what is cached first is without gradients
                f"memory={memory!r} does not go with torch.nn.utils.parametrize.cached(), as "
                f"{label} is parametrized; leave the context, or use memory='recompute'"
            )
    if memory not in IN_FIXED_POINT:
        return None
    reasons = (recurrence.inexact_reason(memory) for recurrence in stack.recurrences)
    return next(filter(None, reasons), None)


def require(reason: str | None) -> None:
    """Raise a ValueError with ``reason``, if there is one."""
    if reason:
        raise ValueError(reason)


def has_batch_statistics(module: nn.Module) -> bool:
    """Return whether a module normalises by statistics over the batch it is given."""
    norms = (each for each in module.modules() if isinstance(each, _BatchNorm))
    return any(each.training or each.running_mean is None for each in norms)


def not_a_graph(memory: str, packed: bool) -> str | None:
    """Return why ``torch.compile`` and ``torch.export`` cannot trace a forward pass, or None."""
    if memory not in LAYERWISE:
        return f"memory={memory!r} runs in Python; set memory='recompute' or 'store'"
    if packed:
        return "sequences of different length are packed in Python"
    return None


def computed_weight(block: nn.Module, names: Iterable[str] = RECURRENCE) -> str | None:
    """Return which of u, a and b is computed by a hook, as by pruning; None if none is."""
    return next((n for n in names if n not in block._parameters and n not in block._buffers), None)


def check_initialised(memory: str, parameters: Iterable[Tensor]) -> None:
    """Raise a ValueError if a parameter of a lazy module is not initialised."""
    if any(map(is_lazy, parameters)):
        raise ValueError(
            f"memory={memory!r} needs the parameters of lazy modules, such as nn.LazyLinear, from "
            "the start; run the model once under torch.no_grad() with memory='recompute'"
        )


def check_reverse_mode(memory: str, *tensors: Tensor | None) -> None:
    """Refuse ``torch.jit.trace``, ``torch.func``, batches of gradients and forward mode."""
    batched = torch._C._functorch.is_legacy_batchedtensor
    if torch.jit.is_tracing():
        what = "torch.jit.trace (use torch.export)"
    elif transformed():
        what = "torch.func"
    elif any(t is not None and batched(t) for t in tensors):
        what = "a batch of gradients (is_grads_batched=True, or jacobian with vectorize=True)"
    elif has_tangent(*tensors):
        what = "forward-mode derivatives (jvp)"
    else:
        return
    raise NotImplementedError(f"memory={memory!r} does not go with {what}; {WHAT_CAN}")
