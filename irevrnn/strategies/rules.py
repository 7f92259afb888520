"""Decide which strategy goes with which model, input and transform."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from irevrnn.activations import ACTIVATIONS
from irevrnn.observers import transformed
from irevrnn.ops import has_tangent

#: Steps between two saved cell states under ``recompute``: large enough that c costs little beside
#: the output, small enough that the replayed values of a segment stay in the processor's cache.
SEGMENT = 16

STRATEGIES = ("store", "recompute", "checkpoint", "reversible", "store_fixed", "auto")
OF_A_LAYER = ("store", "recompute")
OF_THE_STACK = ("checkpoint", "reversible", "store_fixed")
IN_FIXED_POINT = ("reversible", "store_fixed")
#: What a budget can shape: which strategy, the length of chunks, or how many checkpoints are kept.
BUDGETED = ("auto", "checkpoint", "reversible")
_FORGOTTEN_BITS = sorted(
    (g.forgotten_bits, name) for name, g in ACTIVATIONS.items() if g.forgotten_bits is not None
)
#: Output nonlinearities with an inverse in fixed point, that which forgets least first.
INVERTIBLE = tuple(name for _, name in _FORGOTTEN_BITS)
#: The parameters of a block that make up its recurrence: u, a and b.
RECURRENCE = ("recurrent_weight", "coupling_a", "coupling_b")

_FIRST_ORDER = "memory='store' and memory='recompute' can"


def check_strategy(memory: str) -> str:
    """Return ``memory`` if there is such a strategy, else raise a ValueError."""
    if memory not in STRATEGIES:
        raise ValueError(f"memory must be one of {', '.join(STRATEGIES)}; got {memory!r}")
    return memory


def check_budget(memory: str, memory_budget: float | str | None) -> None:
    """Raise a ValueError if a budget is missing, or given where nothing goes by it."""
    if check_strategy(memory) == "auto" and memory_budget is None:
        raise ValueError("memory='auto' needs memory_budget, such as memory_budget='256MB'")
    if memory not in BUDGETED and memory_budget is not None:
        raise ValueError(
            f"memory_budget goes with memory='auto', 'checkpoint' and 'reversible' alone; got "
            f"memory={memory!r}"
        )


def unsupported_reason(
    memory: str,
    *,
    activations: Iterable[str] = (),
    bidirectional: bool = False,
    device: str = "cpu",
    modules: Iterable[tuple[str, nn.Module]] = (),
) -> str | None:
    """Return why a strategy cannot serve, and which one can; None if it can.

    Args:
        memory: the strategy.
        activations: the output nonlinearities of the recurrences.
        bidirectional: whether the stack reads sequences from both ends.
        device: the type of the device.
        modules: those of the stack, in the mode in which they will run, with what an error calls
            each of them.
    """
    if memory not in OF_THE_STACK:
        return None
    if bidirectional:
        return (
            f"bidirectional=True does not go with memory={memory!r}, which takes all layers "
            "through a chunk of steps at once; use memory='recompute' or 'store'"
        )
    for label, module in modules:
        if has_batch_statistics(module):
            return (
                f"memory={memory!r} cannot run with the batch norm of {label}, whose statistics "
                "run over all steps; use norm='layer', or memory='recompute'"
            )
        if any(getattr(each, "scale_grad_by_freq", False) for each in module.modules()):
            return (
                f"memory={memory!r} cannot run with scale_grad_by_freq=True in {label}, which "
                "counts tokens over all steps; use memory='recompute'"
            )
    if memory not in IN_FIXED_POINT:
        return None
    if device == "meta":
        return (
            f"memory={memory!r} looks at values, and there are none on the meta device; use "
            "memory='recompute', 'store' or 'checkpoint'"
        )
    for activation in activations:
        if activation not in INVERTIBLE:
            prices = ", ".join(f"{name} ({bits:g} bits)" for bits, name in _FORGOTTEN_BITS)
            return (
                f"activation={activation!r} cannot be inverted: memory={memory!r} takes {prices}, "
                "and stores these bits for each output that they change; memory='checkpoint' "
                "and 'recompute' take any activation"
            )
    return None


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
    if memory not in OF_A_LAYER:
        return f"memory={memory!r} runs in Python; set memory='recompute' or 'store'"
    if packed:
        return "sequences of different length are packed in Python"
    return None


def computed_weight(block: nn.Module, names: Iterable[str] = RECURRENCE) -> str | None:
    """Return which of u, a and b is computed by a hook, as by pruning; None if none is."""
    return next((n for n in names if n not in block._parameters and n not in block._buffers), None)


def unsupported_weights(memory: str, blocks: Iterable[tuple[str, nn.Module]]) -> str | None:
    """Return why a strategy cannot serve these blocks, if u, a or b of one is computed by a hook.

    Chunks need these before their block runs.

    Args:
        memory: the strategy.
        blocks: with what an error calls each of them.
    """
    for label, block in blocks:
        if memory in OF_THE_STACK and getattr(block, "_is_replica", False):
            return (
                f"memory={memory!r} does not run under torch.nn.DataParallel, whose replicas have "
                "no parameters of their own; use DistributedDataParallel, or memory='recompute'"
            )
        if memory in OF_THE_STACK and (name := computed_weight(block)):
            needs = f"memory={memory!r} needs {name} of {label} as a parameter of its own, but "
            if not block._parameters:
                return (
                    f"{needs}{type(block).__name__} wraps the module that has it; use "
                    "memory='recompute', or wrap the modules inside of the block"
                )
            return (
                f"{needs}it is pruned or parametrized; use memory='recompute', or make it "
                "permanent (torch.nn.utils.prune.remove)"
            )
    return None


def check_initialised(memory: str, parameters: Iterable[nn.Parameter]) -> None:
    """Raise a ValueError if a parameter of a lazy module is not initialised."""
    if any(map(is_lazy, parameters)):
        raise ValueError(
            f"memory={memory!r} needs the parameters of lazy modules, such as nn.LazyLinear, from "
            "the start; run the model once under torch.no_grad() with memory='recompute'"
        )


def check_buffers(memory: str, buffers: Iterable[Tensor]) -> None:
    """Raise a ValueError if a buffer requires a gradient, which parameters alone get."""
    for x in buffers:
        if x.requires_grad:
            raise ValueError(
                f"memory={memory!r} computes no gradient of a buffer, and one of shape "
                f"{tuple(x.shape)} requires it; use memory='recompute', or make it a parameter"
            )


def check_known(memory: str, foreign: Tensor | None) -> None:
    """Raise a ValueError if a chunk has a gradient for a tensor that is no parameter."""
    if foreign is not None:
        raise ValueError(
            f"a module of the stack uses a tensor of shape {tuple(foreign.shape)} that requires a "
            f"gradient and is none of its parameters: memory={memory!r} would lose this gradient; "
            "use memory='recompute', or make it a parameter of the module"
        )


def check_no_cached_weights(memory: str, modules: Iterable[tuple[str, nn.Module]]) -> None:
    """Raise a ValueError within ``parametrize.cached()``, where a module is parametrized.

    Copies of a module would share the weights that were cached, with their graph or without.
    """
    if not parametrize._cache_enabled:
        return
    for label, module in modules:
        if any(map(parametrize.is_parametrized, module.modules())):
            raise ValueError(
                f"memory={memory!r} does not go with torch.nn.utils.parametrize.cached(), as "
                f"{label} is parametrized; leave the context, or use memory='recompute'"
            )


def check_weight(largest: float, block: str) -> None:
    """Raise a ValueError unless the largest absolute recurrent weight is at most 1, and a number.

    Args:
        largest: max(abs(u)), or NaN.
        block: what an error calls the block.
    """
    if not largest <= 1:
        raise ValueError(
            f"{block}: recurrent weights must lie in [-1, 1] to be inverted, but the largest has "
            f"absolute value {largest:.9g}; call clip_recurrent_weights_() after each step of the "
            "optimizer"
        )


def check_reverse_mode(memory: str, *tensors: Tensor | None) -> None:
    """Refuse ``torch.jit.trace``, ``torch.func``, batched gradients and forward-mode derivatives.

    Raises:
        NotImplementedError: one of them is active.
    """
    if torch.jit.is_tracing():
        raise NotImplementedError(
            f"memory={memory!r} cannot be recorded by torch.jit.trace; use torch.export, or "
            "torch.jit.trace under torch.no_grad(), after setting memory='recompute'"
        )
    if transformed():
        raise NotImplementedError(
            f"memory={memory!r} cannot be transformed by torch.func; {_FIRST_ORDER}"
        )
    if any(t is not None and torch._C._functorch.is_legacy_batchedtensor(t) for t in tensors):
        raise NotImplementedError(
            f"memory={memory!r} takes no batch of gradients (is_grads_batched=True, or jacobian "
            f"with vectorize=True); {_FIRST_ORDER}"
        )
    if has_tangent(*tensors):
        raise NotImplementedError(
            f"memory={memory!r} has no forward-mode derivative (jvp); use reverse mode (vjp)"
        )


def first_order_only(backward: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
    """Make differentiating the gradients of ``backward`` an error that names the strategy.

    PyTorch's ``once_differentiable`` notices only upstream gradients that require a gradient.

    Args:
        backward: of an ``autograd.Function``; ``ctx.memory`` names the strategy.
    """

    @wraps(backward)
    def wrapper(ctx: Any, *upstream: Tensor | None) -> tuple[Any, ...]:
        if torch.compiler.is_compiling():  # by compiled autograd
            from irevrnn.compiling import run_uncompiled

            gradients: tuple[Any, ...] = run_uncompiled(wrapper, ctx, *upstream)
            return gradients
        check_reverse_mode(ctx.memory, *upstream)
        with torch.no_grad():
            gradients = backward(ctx, *upstream)
        if not torch.is_grad_enabled():  # no create_graph=True
            return gradients
        return tuple(
            g if g is None else _WithoutGradient.apply(g.requires_grad_(), ctx.memory)
            for g in gradients
        )

    return wrapper


class _WithoutGradient(torch.autograd.Function):
    """The identity, whose derivative is an error."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, memory: str) -> Tensor:
        ctx.memory = memory
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> Any:
        raise RuntimeError(f"memory={ctx.memory!r} cannot be differentiated twice; {_FIRST_ORDER}")
