"""Any module with a state, as a strategy runs it: :class:`StatefulModule`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from irevrnn.recurrences.packing import Steps
from irevrnn.recurrences.protocol import Drive, Recurrence, Result, State

#: Units of a module that has no ``hidden_size``.
WIDTH = 64


def is_stateful(module: nn.Module) -> bool:
    """Return whether a module carries a state from step to step.

    An ``nn.LSTM``, ``nn.GRU`` or ``nn.RNN`` does, and so does any other whose ``forward`` takes a
    second argument: ``forward(x, state)``.
    """
    kind: Any = type(getattr(module, "_orig_mod", module))  # torch.compile wraps a module
    if kind not in _STATEFUL:  # every step of a stream asks, and a compiler takes no signatures
        _STATEFUL[kind] = _takes_a_state(kind)
    return _STATEFUL[kind]


_STATEFUL: dict[type, bool] = {}


def _takes_a_state(kind: type[nn.Module]) -> bool:
    if issubclass(kind, torch.jit.ScriptModule):  # whose signature says nothing
        return False
    _, *parameters = inspect.signature(kind.forward).parameters.values()  # without self
    positional = [p for p in parameters if p.kind == p.POSITIONAL_OR_KEYWORD]
    return len(positional) > 1 and positional[1].default in (None, inspect.Parameter.empty)


def check_one_direction(module: Any, name: str) -> None:
    """Raise a ValueError if a module reads sequences from both ends."""
    if getattr(module, "bidirectional", False):
        raise ValueError(
            f"{name} must read sequences in one direction, as chunks of steps run one after the "
            "other; got bidirectional=True: use two modules, and give x.flip(0) (x.flip(1) with "
            "batch_first) to the second one"
        )


class StatefulModule(Recurrence):
    """A module ``forward(x, state) -> (y, state)`` over any number of steps.

    Time is the first dimension of x and y, or the second if the module's ``batch_first`` is true. A
    state is None before the first step, else a tensor or nested tuples of tensors. Where sequences
    end or begin anew, the module runs piece by piece, and states are set to 0 where a sequence
    begins anew.

    Args:
        module: the module.
        name: what an error calls it.
        before: what the module reads, a function of each step of x; x itself if not given.
        after: the output, a function of each step of x and y; y itself if not given.
    """

    full_precision = False

    def __init__(
        self, module: Any, name: str,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor, Tensor], Tensor] = lambda x, y: y,
    ) -> None:  # fmt: skip
        self.module, self.name = module, name
        self._before, self._after = before, after
        size = getattr(module, "hidden_size", None)
        self.width = size if isinstance(size, int) else WIDTH
        self._batch_first = getattr(module, "batch_first", False) is True
        self._structure: Any = None
        #: The dimension of the batch in each tensor of a state, if it is known.
        self._dims: list[int] | None = None
        if isinstance(module, nn.RNNBase):
            self._dims = [1] * (2 if module.mode == "LSTM" else 1)

    def batch_dims(self, state: State, batch: int) -> list[int]:
        """Return the dimension of the batch in each tensor of a state."""
        if self._dims is not None:
            return self._dims
        dims = [[dim for dim, size in enumerate(x.shape) if size == batch] for x in state]
        return self._one_each(dims, state, batch)

    def _find_batch_dims(self, x: Tensor) -> list[int]:
        """Run the module over a step of two sequences, and of three, to find out."""
        step = x[:1, :1]
        with torch.no_grad(), torch.random.fork_rng([x.device] if x.is_cuda else []):
            two, three = (self._run(torch.cat([step] * size, 1), None)[1] for size in (2, 3))
        shapes = [[*zip(x.shape, y.shape, strict=True)] for x, y in zip(two, three, strict=True)]
        dims = [[dim for dim, pair in enumerate(x) if pair == (2, 3)] for x in shapes]
        return self._one_each(dims, three, 3)

    def _one_each(self, dims: list[list[int]], state: State, batch: int) -> list[int]:
        if any(len(each) != 1 for each in dims):
            raise ValueError(
                f"{self.name}: each tensor of a state must have one dimension for the batch of "
                f"{batch}; got shapes {', '.join(str(tuple(x.shape)) for x in state)}"
            )
        return [dim for (dim,) in dims]

    def drive(self, x: Tensor) -> Drive:
        """Return what the module reads."""
        return (self._before(x),)

    def scan(self, drive: Drive, state: State | None, steps: Steps, memory: str) -> Result:
        """Run the module over some steps."""
        (x,), state = drive, state or None
        if steps.packing is None and steps.resets is None:
            return self._run(x, state)
        outputs: list[Tensor] = []
        ended: list[State] = []
        for piece in steps.pieces():
            part = x[piece.rows]
            if steps.packing is not None:
                part = part.unflatten(0, (-1, piece.batch))
            if self._dims is None:
                self._dims = self._find_batch_dims(part)
            if state is not None and (rest := state[0].shape[self._dims[0]] - piece.batch):
                pairs = zip(state, self._dims, strict=True)
                parts = [x.split([piece.batch, rest], dim) for x, dim in pairs]
                state, others = zip(*parts, strict=True)
                ended.append(others)
            if state is not None and (anew := piece.begins_anew) is not None and anew.any():
                pairs = zip(state, self._dims, strict=True)
                shapes = [(x, [-1, *[1] * (x.dim() - 1 - dim)]) for x, dim in pairs]
                state = tuple(x.masked_fill(anew.view(shape), 0) for x, shape in shapes)
            y, state = self._run(part, state)
            outputs.append(y if steps.packing is None else y.flatten(0, 1))
        assert state is not None  # there is at least one step
        for others in reversed(ended):
            joined = zip(state, others, self._dims or (), strict=True)
            state = tuple(torch.cat((x, y), dim) for x, y, dim in joined)
        return torch.cat(outputs), state

    def output(self, x: Tensor, h: Tensor) -> Tensor:
        """Return the output of each step."""
        return self._after(x, h)

    def flatten(self, state: Any) -> State:
        """Return the tensors of a nested state, and remember how they are nested."""
        tensors, self._structure = tree_flatten(state, lambda x: not isinstance(x, tuple | list))
        for x in tensors:
            if not isinstance(x, Tensor):
                raise TypeError(
                    f"{self.name}: a state must be a torch.Tensor or nested tuples of them; got "
                    f"{type(x).__name__}"
                )
        return tuple(tensors)

    def nest(self, state: State) -> Any:
        """Invert :meth:`flatten`."""
        return tree_unflatten(list(state), self._structure)

    def _run(self, x: Tensor, state: State | None) -> Result:
        steps = len(x)
        x = x.transpose(0, 1) if self._batch_first else x
        result = self.module(x, None if state is None else self.nest(state))
        if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], Tensor)):
            raise TypeError(
                f"{self.name}: forward takes a second argument, the state, so it must return a "
                "pair, a torch.Tensor of all steps and the state; got "
                f"{type(result).__name__}. If the second argument is no state, wrap the module in "
                "one whose forward takes x alone"
            )
        y, after = result
        y = y.transpose(0, 1) if self._batch_first else y
        if len(y) != steps:
            raise ValueError(
                f"{self.name}: forward must return an output for each of {steps} steps, in the "
                f"dimension that time has in x; got {tuple(result[0].shape)} for {tuple(x.shape)}"
            )
        return y, self.flatten(after)
