"""The stack of blocks that every strategy runs, and how a pass goes through it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from irevrnn.input_checks import autocasts
from irevrnn.modules.block import is_recurrent, reads_tokens
from irevrnn.modules.steps import Steps, current, passes
from irevrnn.strategies.rules import has_batch_statistics, unsupported_reason, unsupported_weights


@dataclass(frozen=True)
class Stack:
    """Modules, stacked on one another.

    Attributes:
        modules: from the bottom up: blocks, and functions of a step.
        reverse: for each of them the block that reads sequences from their end, if there are any.
        label: what an error calls one of them: "layer" or "block".
        costs: what :mod:`irevrnn.strategies.saved_bytes` found out.
    """

    modules: Sequence[nn.Module]
    reverse: Sequence[nn.Module] = ()
    label: str = "block"
    costs: dict[Any, Any] = field(default_factory=dict)

    @property
    def directions(self) -> int:
        """The number of directions that sequences are read in."""
        return 2 if self.reverse else 1

    @property
    def blocks(self) -> list[Any]:
        """The modules with a recurrence."""
        return [module for module in self.modules if is_recurrent(module)]

    @property
    def all_blocks(self) -> list[Any]:
        """The blocks of all directions, in the order of the states: those of a layer together."""
        if not self.reverse:
            return self.blocks
        return [block for pair in zip(self.modules, self.reverse, strict=True) for block in pair]

    @property
    def widest(self) -> int:
        """The most units that a block has."""
        return max(block.hidden_size for block in self.blocks)

    @property
    def places(self) -> list[int]:
        """The indices of the blocks among the modules."""
        return [index for index, module in enumerate(self.modules) if is_recurrent(module)]

    @property
    def named(self) -> list[tuple[str, nn.Module]]:
        """The modules, with what an error calls each of them."""
        return [(self.name(index), module) for index, module in enumerate(self.modules)]

    @property
    def named_blocks(self) -> list[tuple[str, nn.Module]]:
        """The modules with a recurrence, with what an error calls each of them."""
        return [(self.name(place), self.modules[place]) for place in self.places]

    def unsupported_reason(self, memory: str) -> str | None:
        """Return why a strategy cannot run the modules in their present mode; None if it can."""
        return unsupported_reason(
            memory,
            activations=[block.activation for block in self.blocks],
            bidirectional=self.directions == 2,
            device=self.blocks[0].recurrent_weight.device.type,
            modules=self.named,
        ) or unsupported_weights(memory, self.named_blocks)

    def name(self, index: int) -> str:
        """Return what an error calls module ``index``."""
        if self.label == "layer":
            return f"layer {index}"  # all are of one class
        return f"{self.label} {index} ({type(self.modules[index]).__name__})"


#: Run the recurrence of a block, given its number among the blocks, the module and its input x;
#: return h of every row, and h after the last step of every sequence.
Recur = Callable[[int, nn.Module, Tensor], tuple[Tensor, Tensor]]


def run_modules(
    stack: Stack,
    modules: Sequence[nn.Module],
    x: Tensor,
    recur: Recur,
    steps: Steps | None,
    last_only: bool,
) -> Tensor:
    """Take some steps through all modules of a stack.

    Args:
        stack: the stack.
        modules: its modules, or copies of them.
        x: (T, B, in), or (N, in) packed; for an embedding, with in = 1.
        recur: the recurrence of the blocks.
        steps: which steps these are; None while compiling, where nothing is packed.
        last_only: whether to return the output of each sequence's last step only.

    Returns:
        (T, B, out) or (N, out); with ``last_only`` (E, out), for the E sequences that end here.
    """
    numbers = {place: number for number, place in enumerate(stack.places)}
    top = len(numbers) - 1
    before, packing = current.steps, None if steps is None else steps.packing
    above = modules[stack.places[-1] :]  # batch statistics are those of all steps, here too
    last_alone = last_only and packing is None and not any(map(has_batch_statistics, above))
    try:
        if steps is not None:
            current.steps = steps
            passes.running += 1
        for index, module in enumerate(modules):
            rows = x.shape[:-1]
            if index not in numbers:
                x = module(x.squeeze(-1) if index == 0 and reads_tokens(module) else x)
            else:
                h, h_n = recur(numbers[index], module, x)
                if numbers[index] == top and last_alone:
                    # h_n is a tensor of its own: the gradient of a slice of h would be as large. It
                    # is returned, too, so modules get a copy, which they may work on in place.
                    x, h = x[-1:], h_n.clone().unsqueeze(0)
                    if steps is not None:
                        current.steps = steps.last()
                x, rows = module.output(x, h), h.shape[:-1]  # type: ignore[operator]
            _check_result(stack, index, "output", x, rows)
    finally:  # without a call, at which an interrupt could come first
        if steps is not None:
            current.steps = before
            passes.running -= 1
    if not last_only:
        return x
    return x[-1] if packing is None else x[packing.last_rows]


def project(stack: Stack, number: int, block: Any, x: Tensor) -> Tensor:
    """Return the input projection of a block, checked, in the dtype of the states.

    Under autocast the states stay in full precision: the recurrence sums over many steps.
    """
    # A block is not called, as a rule; a hook may compute its weights, as by pruning.
    if not getattr(block, "_is_called", False):
        for key, hook in [*block._forward_pre_hooks.items()]:
            if key in block._forward_pre_hooks_with_kwargs:
                hook(block, (x,), {})
            else:
                hook(block, (x,))
    z, u, index = block.project(x), block.recurrent_weight, stack.places[number]
    _check_result(stack, index, "project", z, (*x.shape[:-1], len(u)))
    if z.dtype != u.dtype:
        if not autocasts(z.device.type):
            raise ValueError(
                f"{stack.name(index)}: project must return the dtype of the recurrence, {u.dtype}; "
                f"got {z.dtype}"
            )
        z = z.to(u.dtype)
    return z


def _check_result(stack: Stack, index: int, method: str, y: Any, shape: Sequence[int]) -> None:
    """Raise an error unless ``y`` has ``shape``, or (*shape, features) as an output."""
    if not isinstance(y, Tensor):
        raise TypeError(
            f"{stack.name(index)}: {method} must return a torch.Tensor; got {type(y).__name__}"
        )
    wanted = len(shape) + (method == "output")
    if y.dim() != wanted or y.shape[: len(shape)] != tuple(shape):
        features = ", features" if method == "output" else ""
        raise ValueError(
            f"{stack.name(index)}: {method} must treat each step by itself and return shape "
            f"({', '.join(map(str, shape))}{features}); got {tuple(y.shape)}"
        )
