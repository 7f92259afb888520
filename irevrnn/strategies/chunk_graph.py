"""The backward pass through the graph of a chunk, and the gradients of parameters of all chunks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.utils.stateless import _reparametrize_module

from irevrnn.kernels.ops import HALF


class Gradients:
    """The gradients of the parameters of the forward pass, summed over chunks.

    Args:
        modules: of the stack.
        parameters: of the forward pass, in the order of ``modules``, and which ``needed`` one.
        compiled: the modules whose parameters no graph of a chunk has.

    Attributes:
        leaves: the parameters that need a gradient.
        in_graph: those among them that a chunk's graph may have.
        sums: of their gradients, by id, at least in float32: autograd rounds them to the
            parameters' dtype.
    """

    def __init__(
        self, modules: Iterable[nn.Module], parameters: Sequence[Tensor], needed: Sequence[bool],
        compiled: Sequence[nn.Module] = (),
    ) -> None:  # fmt: skip
        self._modules, self._parameters, self._needed = nn.ModuleList(modules), parameters, needed
        outside = {id(p) for m in self._modules if m not in compiled for p in m.parameters()}
        present = [id(p) in outside for p in self._modules.parameters()]
        pairs = [*zip(parameters, needed, present, strict=True)]
        self.leaves = [p for p, need, _ in pairs if need]
        self.in_graph = [p for p, need, is_outside in pairs if need and is_outside]
        self.sums: dict[int, Tensor] = {}

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Put the parameters of the forward pass in place, without their hooks.

        Modules have others by now after ``torch.func.functional_call``. A hook on a parameter is
        for its whole gradient, and autograd calls it with that.
        """
        present = dict(self._modules.named_parameters())
        wanted = dict(zip(present, self._parameters, strict=True))
        others = any(present[name] is not wanted[name] for name in present)
        hooks = [(h, dict(h)) for p in self.leaves if (h := p._backward_hooks)]
        try:
            for its_hooks, _ in hooks:
                its_hooks.clear()
            with _reparametrize_module(self._modules, wanted if others else {}, tie_weights=others):
                yield
        finally:
            for its_hooks, before in hooks:
                its_hooks.update(before)

    def add(self, found: Iterable[tuple[Tensor, Tensor | None]]) -> None:
        """Add gradients to the sums of the parameters that they come with."""
        sums, more = [], []
        for p, gradient in found:
            if gradient is None:
                continue
            if id(p) in self.sums:
                sums.append(self.sums[id(p)])
                more.append(gradient)
            else:
                # In half precision a sum of many chunks stops growing.
                dtype = torch.float32 if gradient.dtype in HALF else gradient.dtype
                self.sums[id(p)] = gradient.to(dtype, copy=True)  # it may be shared, or expanded
        if sums:
            torch._foreach_add_(sums, more)

    def results(self) -> list[Tensor | None]:
        """Return a gradient for each parameter, zeros for one with hooks, which take no None."""
        found: list[Tensor | None] = []
        for p, need in zip(self._parameters, self._needed, strict=True):
            gradient = self.sums.get(id(p))
            hooks = p._backward_hooks or getattr(p, "_post_accumulate_grad_hooks", None)
            found.append(torch.zeros_like(p) if need and gradient is None and hooks else gradient)
        return found


def backpropagate(
    before: list[Tensor], outputs: list[Tensor], upstream: Sequence[Tensor | None],
    gradients: Gradients, x: Tensor,
) -> tuple[list[Tensor | None], Tensor | None]:  # fmt: skip
    """Backpropagate through the graph of a chunk, which frees it, and add to ``gradients``.

    ``before`` are the states before the chunk, x is its input; ``upstream`` are the gradients of
    its outputs. Return those of ``before`` and of x. Where there is none, it is None.
    """
    pairs = zip(outputs, upstream, strict=True)
    used = [(y, g) for y, g in pairs if g is not None and y.requires_grad]
    states = [state for state in before if state.requires_grad]
    wanted = [*states, *gradients.in_graph, *([x] if x.requires_grad else [])]
    found: Sequence[Tensor | None] = [None] * len(wanted)
    if used and wanted:
        ys, gs = zip(*used, strict=True)
        # torch.autograd.grad would import SymPy for several outputs, which takes 40 MB.
        found = torch.autograd.Variable._execution_engine.run_backward(
            ys, gs, False, False, tuple(wanted), allow_unreachable=True, accumulate_grad=False
        )
    gradients.add(zip(gradients.in_graph, found[len(states) :], strict=False))
    of_states = iter(found)
    carried = [next(of_states) if state.requires_grad else None for state in before]
    return carried, found[-1] if x.requires_grad else None


def check_leaves(outputs: list[Tensor], known: Sequence[Tensor], memory: str) -> None:
    """Raise a ValueError if the graph of ``outputs`` has a leaf that is not among those known.

    Any gradient of such a tensor would be lost.
    """
    ids = {id(x) for x in known}
    met = {x.grad_fn for x in known} - {None}  # behind these the graph is not that of the chunk
    ahead = [y.grad_fn for y in outputs]
    while ahead:
        node = ahead.pop()
        if node is None or node in met:
            continue
        met.add(node)
        leaf = getattr(node, "variable", None)  # of a node that accumulates gradients
        if leaf is not None and id(leaf) not in ids:
            raise ValueError(
                f"a module of the stack uses a tensor of shape {tuple(leaf.shape)} that requires a "
                f"gradient and is not one of its parameters: memory={memory!r} would lose this "
                "gradient; use memory='recompute', or make it a parameter of the module"
            )
        ahead += [following for following, _ in node.next_functions]
