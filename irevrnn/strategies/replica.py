"""Copies of a stack's modules, with parameters of their own, and the gradients of these."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from irevrnn.ops import HALF
from irevrnn.strategies.stack import Stack

Module = TypeVar("Module", bound=nn.Module)
#: Of each module: its plain attributes, such as ``training``, and copies of its hooks.
Modes = dict[nn.Module, dict[str, Any]]
#: Of a module: those of its parameters, and those of its buffers.
Names = tuple[list[str], list[str]]
#: What attributes that are restored may be.
_PLAIN = frozenset((bool, int, float, str, type(None)))
_HOOKS = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called",
    "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_backward_hooks",
    "_backward_pre_hooks",
)  # fmt: skip


def parameters_of(stack: Stack) -> list[nn.Parameter]:
    """Return the parameters of all modules, a shared one as often as it has names."""
    return [p for module in stack.modules for _, p in _named(module)]


def buffers_of(stack: Stack) -> list[Tensor]:
    """Return the buffers of all modules, a shared one as often as it has names."""
    return [x for module in stack.modules for _, x in _buffers(module)]


def modes_of(stack: Stack) -> Modes:
    """Return the mode of each module, and of each inside of it."""
    return {each: _mode(each) for module in stack.modules for each in module.modules()}


def _mode(module: nn.Module) -> dict[str, Any]:
    own = vars(module)  # which have no ``training`` in a scripted module
    plain = {name: value for name, value in own.items() if type(value) in _PLAIN}
    return (
        plain
        | {"training": module.training}
        | {name: dict(own[name]) for name in _HOOKS if name in own}
    )


def names_of(stack: Stack) -> list[Names]:
    """Return the names of the parameters and of the buffers of each module."""
    return [_names(module) for module in stack.modules]


class Replica:
    """A stack as it was in the forward pass, for chunks that are computed again.

    Some modules reach a parameter other than through their copy: what ``torch.compile`` and
    ``torch.jit.script`` return, and those that keep submodules in a list. So the gradients of the
    stack's own parameters are wanted beside those of the copies.

    Args:
        stack: the stack.
        names: those that :func:`names_of` returned.
        parameters: those that :func:`parameters_of` returned.
        buffers: those that :func:`buffers_of` returned.
        needed: whether each of the parameters needs a gradient.
        modes: of the modules in the forward pass.

    Attributes:
        modules: the copies.
        leaves: tensors to differentiate by.
        sums: of the gradients, one for each parameter; None where there is none. They are at least
            in float32, and autograd rounds them to the dtype of the parameter.

    Raises:
        ValueError: a module has other parameters or buffers than in the forward pass.
    """

    def __init__(
        self, stack: Stack, names: Sequence[Names], parameters: Sequence[Tensor],
        buffers: Sequence[Tensor], needed: Sequence[bool], modes: Modes,
    ) -> None:  # fmt: skip
        copies = [p.detach() for p in parameters]
        wanted = [index for index, need in enumerate(needed) if need]
        for index in wanted:
            copies[index].requires_grad_()
        tensors, others = iter(copies), iter(buffers)
        own: list[nn.Parameter] = []
        self.modules = []
        for index, (module, before) in enumerate(zip(stack.modules, names, strict=True)):
            _check_names(stack.name(index), module, before)
            present, (of_parameters, of_buffers) = dict(_named(module)), before
            own += [present[name] for name in of_parameters]
            named = {name: next(tensors) for name in of_parameters}
            named |= {name: next(others) for name in of_buffers}
            self.modules.append(with_parameters(module, named, modes))
        each_once = {p: index for index, p in enumerate(own)}.values()
        used = (i for i in each_once if needed[i] and parameters[i].is_leaf)
        # One that was frozen since is no longer reached by another way, either.
        places = {parameters[i]: i for i in used if parameters[i].requires_grad}
        self.leaves = [*(copies[index] for index in wanted), *places]
        self.sums: list[Tensor | None] = [None] * len(copies)
        self._parameters, self._wanted, self._own = parameters, wanted, places

    def add(self, gradients: Sequence[Tensor | None]) -> None:
        """Add the gradients of :attr:`leaves` to the sums."""
        count = len(self._wanted)
        self._add(self._wanted, gradients[:count])
        for p, gradient in zip(self._own, gradients[count:], strict=True):
            if gradient is not None and p._backward_hooks:
                raise ValueError(
                    f"a hook on a parameter of shape {tuple(p.shape)} would run for every chunk, "
                    "as a compiled or scripted module, or one kept in a list, uses it; use "
                    "memory='recompute', or take the hook away"
                )
        self._add(self._own.values(), gradients[count:])

    def gradients(self) -> list[Tensor | None]:
        """Return the sums, with zeros for what is not reached but has hooks: they take no None."""
        for place in self._wanted:
            p = self._parameters[place]
            if self.sums[place] is None and (p._backward_hooks or p._post_accumulate_grad_hooks):
                self.sums[place] = torch.zeros_like(p)
        return self.sums

    def _add(self, places: Iterable[int], gradients: Sequence[Tensor | None]) -> None:
        sums, more = [], []
        for place, gradient in zip(places, gradients, strict=True):
            if gradient is None:
                continue
            if (before := self.sums[place]) is None:
                # In half precision a sum of many chunks stops growing.
                dtype = torch.float32 if gradient.dtype in HALF else gradient.dtype
                self.sums[place] = gradient.to(dtype, copy=True)  # it may be shared, or expanded
            else:
                sums.append(before)
                more.append(gradient)
        if sums:
            torch._foreach_add_(sums, more)


def _named(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return module.named_parameters(remove_duplicate=False)  # a shared one under each of its names


def _buffers(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return module.named_buffers(remove_duplicate=False)


def _names(module: nn.Module) -> Names:
    return [name for name, _ in _named(module)], [name for name, _ in _buffers(module)]


def _check_names(label: str, module: nn.Module, before: Names) -> None:
    """Raise a ValueError if a module has other parameters or buffers than in the forward pass."""
    for kind, old, new in zip(("parameters", "buffers"), before, _names(module), strict=True):
        if {*old} != {*new}:
            changed = ", ".join(sorted({*old} ^ {*new}))
            raise ValueError(
                f"{label} must have the {kind} of the forward pass in the backward pass; it has "
                f"gained or lost {changed}"
            )


def with_parameters(
    module: Module, tensors: Mapping[str, Tensor], modes: Mapping[nn.Module, dict[str, Any]] = {}
) -> Module:
    """Return a copy of a module that computes with other tensors and shares all else.

    The module itself stays as it is: other threads may run it, and an exception leaves nothing to
    be undone, unlike with ``torch.func.functional_call``.

    Args:
        module: to copy, with its submodules.
        tensors: parameters and buffers of the copy, by their names in ``module``.
        modes: of the copies; those of the originals, if not given.
    """
    copies = {original: _shallow_copy(original) for original in module.modules()}
    for original, replica in copies.items():
        vars(replica).update(modes.get(original, {"training": original.training}))
        for name, child in original._modules.items():
            replica._modules[name] = None if child is None else copies[child]
    by_name = dict(module.named_modules(remove_duplicate=False))
    for full_name, tensor in tensors.items():
        path, _, name = full_name.rpartition(".")
        owner = copies[by_name[path]]
        tensors_of_owner: Any = owner._buffers if name in owner._buffers else owner._parameters
        tensors_of_owner[name] = tensor
    return copies[module]  # type: ignore[return-value]


def _shallow_copy(module: nn.Module) -> nn.Module:
    replica = object.__new__(type(module))  # that of torch.fx.GraphModule makes a new class
    own = {name: dict(vars(module)[name]) for name in ("_parameters", "_buffers", "_modules")}
    vars(replica).update(vars(module) | own)
    return replica
