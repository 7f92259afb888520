"""The stack of layers that every strategy runs, and what lies between two layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakSet

import torch
from torch import Tensor, nn

from irevrnn.jit.build import warn
from irevrnn.layer import IRevRNNLayer
from irevrnn.ops import traced, transformed
from irevrnn.sequences import Packing

Module = TypeVar("Module", bound=nn.Module)

#: Size of a state from which a network is unlikely to train; a fresh one stays of order 1.
LARGE_STATE = 1e4
_warned: WeakSet[nn.Module] = WeakSet()


@dataclass(frozen=True)
class Stack:
    """Layers, and how they are stacked.

    Attributes:
        layers: from the bottom up.
        reverse_layers: those of the other direction, if there is one.
        activation, coupling_activation: names of g and f.
        residual: whether a layer's input is added to its output where their shapes agree.
        drops: whether dropout is active between layers.
    """

    layers: Sequence[IRevRNNLayer]
    reverse_layers: Sequence[IRevRNNLayer]
    activation: str
    coupling_activation: str
    residual: bool
    drops: bool

    @property
    def directions(self) -> int:
        """The number of directions that sequences are read in."""
        return 2 if self.reverse_layers else 1

    @property
    def all_layers(self) -> list[IRevRNNLayer]:
        """The layers of all directions."""
        return [*self.layers, *self.reverse_layers]

    def adds(self, index: int) -> bool:
        """Return whether layer ``index`` adds its input to its output."""
        spec = self.layers[index].spec
        return self.residual and spec.input_size == self.directions * spec.hidden_size


def drop(x: Tensor, index: int, masks: Tensor | None, packing: Packing | None) -> Tensor:
    """Apply dropout to the input of layer ``index``.

    Args:
        x: (T, B, in), or (N, in) packed.
        index: of the layer; the input of the lowest one is left as it is.
        masks: (L - 1, B, in), one for each border between layers, or None.
        packing: of x, if it is packed.
    """
    if index == 0 or masks is None:
        return x
    mask = masks[index - 1]
    return x * (mask if packing is None else mask[packing.sequences])


def add_input(
    stack: Stack, index: int, x: Tensor, out: Tensor, last: Tensor, packing: Packing | None
) -> tuple[Tensor, Tensor]:
    """Add the input of layer ``index`` to its output, if the stack is residual.

    Args:
        stack: the layers.
        index: of the layer.
        x, out: its input and output, (T, B, features) or (N, features) packed.
        last: its output at the last step, (B, H). A tensor of its own: the gradient of a slice of
            ``out`` would be as large as ``out``. Not used if packed.
        packing: of x, if it is packed.

    Returns:
        ``out`` and ``last`` with the input added.
    """
    if not stack.adds(index):
        return out, last
    return out + x, last + x[-1] if packing is None else last


def warn_of_large_states(module: nn.Module, stack: Stack, h_n: Tensor, c_n: Tensor) -> None:
    """Issue a UserWarning, once per module, if a final state exceeds :data:`LARGE_STATE`.

    States on a GPU are not looked at, since that would wait for it, nor are those that have no
    values, while PyTorch records operators or transforms functions.

    Args:
        module: that computed the states.
        stack: its layers.
        h_n, c_n: (layers * directions, B, H).
    """
    if not _have_values(h_n) or module in _warned:
        return
    if _largest(h_n, c_n) > LARGE_STATE:
        _warned.add(module)
        sizes = [_largest(h, c) for h, c in zip(h_n, c_n, strict=True)]
        index = next(i for i, size in enumerate(sizes) if size > LARGE_STATE)
        warn(
            f"states of layer {index // stack.directions} have grown to {sizes[index]:.1e}, and "
            "training may diverge: set norm='layer', call clip_recurrent_weights_() after each "
            "step of the optimizer, or use a smaller learning rate",
            UserWarning,
        )


def _have_values(states: Tensor) -> bool:
    if traced() or transformed() or torch._C._len_torch_dispatch_stack():
        return False
    return type(states) is Tensor and states.is_cpu and states.numel() > 0


def _largest(*states: Tensor) -> float:
    return max(abs(x.item()) for state in states for x in state.detach().aminmax())


def with_parameters(module: Module, tensors: Mapping[str, Tensor]) -> Module:
    """Return a copy of a module that computes with other parameters and shares all else.

    The module itself stays as it is: other threads may run it, and an exception leaves nothing to
    be undone, unlike with ``torch.func.functional_call``.

    Args:
        module: to copy, with its submodules.
        tensors: the parameters of the copy, by the names of ``module.named_parameters``.
    """
    copies = {original: _shallow_copy(original) for original in module.modules()}
    for original, replica in copies.items():
        for name, child in original._modules.items():
            replica._modules[name] = None if child is None else copies[child]
    for full_name, tensor in tensors.items():
        path, _, name = full_name.rpartition(".")
        owner = copies[module.get_submodule(path)]
        owner._parameters[name] = tensor  # type: ignore[assignment]
    return copies[module]  # type: ignore[return-value]


def _shallow_copy(module: nn.Module) -> nn.Module:
    replica = module.__new__(type(module))
    own = {name: dict(vars(module)[name]) for name in ("_parameters", "_buffers", "_modules")}
    vars(replica).update(vars(module) | own)
    return replica
