"""Run a stack on fake tensors, which have no memory, to see what its graph takes."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from irevrnn.modules.block import reads_tokens
from irevrnn.modules.steps import Masks
from irevrnn.strategies.layerwise import run_layerwise
from irevrnn.strategies.replica import with_parameters
from irevrnn.strategies.rules import check_no_cached_weights
from irevrnn.strategies.stack import Stack
from irevrnn.strategies.workload import Workload


class Trace(NamedTuple):
    """The bytes of a graph.

    Attributes:
        saved: between the forward and the backward pass.
        masks: of :class:`irevrnn.Dropout`, which are among them.
        alive: after each operation that allocates, in either pass: by PyTorch and by the kernels.
    """

    saved: int
    masks: int
    alive: list[tuple[int, int]]

    def peak(self) -> int:
        """Return the bytes at the largest moment.

        On the CPU the kernels keep what they once had, and up to an eighth more
        (:mod:`irevrnn.allocator`): the largest moments of both add up.
        """
        of_torch, of_kernels = self._largest()
        return of_torch + of_kernels * 9 // 8

    def _largest(self) -> tuple[int, int]:
        of_torch, of_kernels = zip(*self.alive, strict=True)
        return max(of_torch), max(of_kernels)

    def longer(self, other: Trace, times: int) -> Trace:
        """Return the trace of a sequence of more steps, given that of one that is a bit longer.

        Args:
            other: of a sequence that is longer by some steps.
            times: how often to add as many.
        """

        def further(one: int, two: int) -> int:
            return one + times * (two - one)

        mine, its = self.alive, other.alive
        if len(mine) != len(its):  # a module takes more operations for more steps
            mine, its = [self._largest()], [other._largest()]
        alive = [
            (further(one[0], two[0]), further(one[1], two[1]))
            for one, two in zip(mine, its, strict=True)
        ]
        return Trace(further(self.saved, other.saved), self.masks, alive)


def trace(stack: Stack, memory: str, load: Workload) -> Trace:
    """Run a stack forward and backward, layer by layer.

    Input, output, their gradients and parameters do not count.

    Args:
        stack: the modules.
        memory: ``store`` or ``recompute``.
        load: the sizes; ``rows`` and ``resets`` make no difference.

    Raises:
        ValueError: a module looks at values.
    """
    check_no_cached_weights("auto", stack.named)
    try:
        # Modes that are active watch over values, or count what is really computed.
        anomalies = torch.autograd.set_detect_anomaly(False)
        with torch.inference_mode(False), _disable_current_modes(), anomalies:
            return _trace(stack, memory, load)
    except RuntimeError as error:
        looks = isinstance(error, DataDependentOutputException | DynamicOutputShapeException)
        if not looks and "tensor subclasses" not in str(error):  # as .numpy() and .tolist() say
            raise
        raise ValueError(
            "a memory_budget and memory_report run the modules without values to find out what "
            f"they save, but one looks at values ({error}); use a strategy without a budget"
        ) from error


def check_real(output: Tensor, input: Tensor) -> None:
    """Raise a RuntimeError if a module has used a tensor without values that it kept of a trace."""
    if isinstance(output, FakeTensor) and not isinstance(input, FakeTensor):
        raise RuntimeError(
            "a budget makes the modules run without values once, to find out what they save, and "
            "one has kept such a tensor in a cache: clear the cache, and run the model once with "
            "another strategy first"
        )


def _trace(stack: Stack, memory: str, load: Workload) -> Trace:
    masks = Masks()
    saved: list[weakref.ref[Tensor]] = []

    def pack(x: Tensor) -> Tensor:
        saved.append(weakref.ref(kept := x.detach()))
        return kept

    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.enable_grad():
        fake, tensors = _with_fakes(stack, mode)
        like = fake.blocks[0].recurrent_weight
        x = _input(like, load, torch.int64 if reads_tokens(stack.modules[0]) else like.dtype)
        zeros = [like.new_zeros(load.batch, block.hidden_size) for block in stack.all_blocks]
        with _Alive() as alive:
            with saved_tensors_hooks(pack, lambda kept: kept):
                output, finals = run_layerwise(
                    fake, memory, x, [(zero, zero) for zero in zeros], None, None,
                    load.return_sequence, masks,
                )  # fmt: skip
            states = [state for pair in finals for state in pair]
            returned = [output]
            if len({state.shape for state in states}) > 1:  # otherwise they are stacked
                returned += states
            known = {_key(t) for t in (x, *returned, *tensors)}
            known |= set() if load.own_states else {_key(zero) for zero in zeros}
            kept = {_key(t): t for ref in saved if (t := ref()) is not None}
            total = sum(t.untyped_storage().nbytes() for key, t in kept.items() if key not in known)
            kept.clear()
            alive.leave_out(returned)
            _backpropagate([output, *states], tensors, alive)
    return Trace(total, sum(mask.nbytes for mask in masks.values()), alive.bytes())


def _input(like: Tensor, load: Workload, dtype: torch.dtype) -> Tensor:
    if not load.copied:
        return like.new_empty(load.steps, load.batch, load.features, dtype=dtype)
    return like.new_empty(load.batch, load.steps, load.features, dtype=dtype).transpose(0, 1)


def _backpropagate(outputs: list[Tensor], tensors: list[Tensor], alive: _Alive) -> None:
    """Backpropagate from outputs to tensors."""
    outputs = [y for y in outputs if y.requires_grad]
    inputs = [p for p in tensors if p.requires_grad]
    if not outputs or not inputs:
        return
    upstream = [torch.empty_like(y) for y in outputs]
    alive.leave_out(upstream)
    torch.autograd.grad(outputs, inputs, upstream, allow_unused=True)


@dataclass
class _Life:
    """The life of a storage: its bytes, whose they are, and from when on until when."""

    bytes: int
    of_kernels: bool
    begin: int
    end: int | None = None


class _Alive(TorchDispatchMode):
    """Follow the storages that are allocated; time is counted in operations that allocate some."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0
        self.lives: list[_Life] = []
        self.living: dict[int, _Life] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        results = {_key(x): x for x in _tensors(result)}
        new = results.keys() - self.living.keys()
        if new:  # most operations return views
            new -= {_key(x) for x in _tensors((args, kwargs))}
        for key in new:
            x = results[key]
            storage, of_kernels = x.untyped_storage(), func.namespace == "irevrnn" and x.is_cpu
            self.living[key] = _Life(storage.nbytes(), of_kernels, self.time)
            self.lives.append(self.living[key])
            weakref.finalize(storage, self._end, key)
        self.time += bool(new)
        return result

    def _end(self, key: int) -> None:
        self.living.pop(key).end = self.time

    def leave_out(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors that are alive as if they had no bytes."""
        for x in tensors:
            if _key(x) in self.living:
                self.living[_key(x)].bytes = 0

    def bytes(self) -> list[tuple[int, int]]:
        """Return the bytes after each operation, of PyTorch and of the kernels."""
        changes = [[0] * (self.time + 1) for _ in range(2)]
        for life in self.lives:
            of = changes[life.of_kernels]
            of[life.begin] += life.bytes
            of[self.time if life.end is None else life.end] -= life.bytes
        return list(zip(*map(accumulate, changes), strict=True))[:-1]


def _tensors(tree: Any) -> list[Tensor]:
    leaves = [x for x in tree_leaves(tree) if isinstance(x, Tensor)]
    return [x for x in leaves if x.layout is torch.strided]  # others have no storage of their own


def _key(x: Tensor) -> int:
    return x.untyped_storage()._cdata


def _with_fakes(stack: Stack, mode: FakeTensorMode) -> tuple[Stack, list[Tensor]]:
    """Return copies of the modules whose parameters and buffers are fake, and these tensors."""
    fakes: dict[Tensor, Tensor] = {}

    def copied(module: nn.Module) -> nn.Module:
        named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers()]
        for _, x in named:
            if x not in fakes:
                fakes[x] = _fake(x, mode)
        copy = with_parameters(module, {name: fakes[x] for name, x in named})
        for each in copy.modules():  # hooks that see results may look at values, or keep them
            for hooks in ("_forward_hooks", "_backward_hooks", "_backward_pre_hooks"):
                vars(each)[hooks] = OrderedDict()
        return copy

    modules = [copied(module) for module in stack.modules]
    reverse = [copied(module) for module in stack.reverse]
    return replace(stack, modules=modules, reverse=reverse), list(fakes.values())


def _fake(x: Tensor, mode: FakeTensorMode) -> Tensor:
    """Return a fake tensor like ``x``, in a mode that is on."""
    if type(x) not in (Tensor, nn.Parameter) or x.layout is not torch.strided:
        return mode.from_tensor(x)
    # from_tensor makes an inference tensor of one, and keeps a weak reference to ``x``.
    return torch.empty_strided(
        x.shape, x.stride(), dtype=x.dtype, device=x.device, requires_grad=x.requires_grad
    )
