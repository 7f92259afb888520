"""The base of :class:`irevrnn.IRevRNN` and :class:`irevrnn.IRevStack`: how a stack is run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from irevrnn.modules.block import reset_inner
from irevrnn.modules.stability import Clipped
from irevrnn.observers import observed, transformed
from irevrnn.sequences import SequenceBatch, States
from irevrnn.strategies import auto
from irevrnn.strategies.chunks import chunk_length
from irevrnn.strategies.chunkwise import records, run_chunkwise
from irevrnn.strategies.large_states import warn_of_large_states
from irevrnn.strategies.layerwise import run_layerwise
from irevrnn.strategies.replica import parameters_of
from irevrnn.strategies.rules import (
    BUDGETED,
    IN_FIXED_POINT,
    OF_THE_STACK,
    check_budget,
    check_strategy,
    not_a_graph,
)
from irevrnn.strategies.saved_bytes import Plan
from irevrnn.strategies.stack import Stack
from irevrnn.strategies.trace import check_real
from irevrnn.strategies.workload import Workload

_log = logging.getLogger("irevrnn")
#: Numbers of one block's states up to which inference with ``reversible`` runs block by block.
WHOLE = 2**24


class BaseStack(Clipped, nn.Module):
    """A stack of blocks and the strategy it is trained with.

    Attributes:
        memory, memory_budget, batch_first: see :class:`irevrnn.IRevStack`.
        picked: the plan that was last chosen for a budget.
    """

    def __init__(self, memory: str, memory_budget: float | str | None, batch_first: bool) -> None:
        super().__init__()
        check_budget(memory, memory_budget)
        self.memory = memory
        self.memory_budget = None if memory_budget is None else auto.parse_bytes(memory_budget)
        self.batch_first = batch_first
        self.picked: Plan | None = None
        self._costs: dict[Any, Any] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        """Check a strategy when it is set, too."""
        if name == "memory":
            check_strategy(value)
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is known of costs: its keys hold classes, which may have no name."""
        return super().__getstate__() | {"_costs": {}}

    def _stack(self) -> Stack:
        """Return the modules as they are to run."""
        raise NotImplementedError

    def _states_symbol(self) -> str:
        """Return what an error calls the number of states."""
        return "recurrent blocks"

    def _input_features(self) -> int | None:
        """Return the features that an input must have, if that is known."""
        return None

    def _reads_tokens(self) -> bool:
        """Return whether the input is indices for an embedding."""
        return False

    def reset_parameters(self) -> None:
        """Draw all parameters anew and reset the statistics of ``norm="batch"``."""
        reset_inner(self)

    def _clipped(self) -> list[tuple[str, nn.Module]]:
        stack = self._stack()
        places = [place for place in stack.places for _ in range(stack.directions)]
        return [*zip(map(stack.name, places), stack.all_blocks, strict=True)]

    def forward(
        self,
        input: Tensor | PackedSequence,
        hidden: States | None = None,
        *,
        lengths: Tensor | Sequence[int] | None = None,
        return_sequence: bool = True,
        resets: Tensor | None = None,
    ) -> tuple[Tensor | PackedSequence, States]:
        """Run the stack over a sequence; see the class for shapes."""
        if torch.compiler.is_compiling():
            packed = lengths is not None or isinstance(input, PackedSequence)
            if reason := not_a_graph(self.memory, packed):
                if torch.compiler.is_exporting():
                    raise ValueError(f"this forward pass cannot be exported: {reason}")
                from irevrnn.compiling import run_uncompiled

                options = {"lengths": lengths, "return_sequence": return_sequence, "resets": resets}
                return run_uncompiled(self.forward, input, hidden, **options)
        stack = self._stack()
        blocks = stack.all_blocks
        weight, sizes = blocks[0].recurrent_weight, [block.hidden_size for block in blocks]
        batch = self._batch(input, lengths, weight)
        bounds = batch.arrange_resets(resets)
        states = batch.initial_states(hidden, sizes, weight, self._states_symbol())
        flat = (state for pair in states for state in pair)
        plain = self.memory not in ("auto", *IN_FIXED_POINT)
        record = plain or records(batch.x, *flat, *parameters_of(stack))
        budgeted = self.memory in BUDGETED and self.memory_budget is not None
        counted = bounds if budgeted else None  # which waits for a GPU
        load = Workload.of(batch, hidden is None, return_sequence, counted)
        memory, chunk, checkpoints = self._choose(stack, load, record)
        arguments = (stack, memory, batch.x, states, batch.packing, bounds)
        if memory in OF_THE_STACK:
            output, finals = run_chunkwise(*arguments, return_sequence, chunk, checkpoints)
        else:
            output, finals = run_layerwise(*arguments, return_sequence)
        if budgeted:
            check_real(output, batch.x)
        warn_of_large_states(self, stack, finals)
        return batch.restore(output, finals, return_sequence)

    def memory_report(
        self,
        input: Tensor | PackedSequence,
        *,
        lengths: Tensor | Sequence[int] | None = None,
        return_sequence: bool = True,
        resets: Tensor | None = None,
    ) -> None:
        """Print what training on ``input`` would need under each strategy: saved bytes and peak.

        All strategies are compared, whatever ``memory`` is. The numbers follow from the sizes and
        the recurrent weights, without computing any values
        (:mod:`irevrnn.strategies.saved_bytes`); the modules run on tensors without values, so side
        effects in Python do happen. ``saved`` is an upper bound for sequences of different length.
        For ``reversible`` it is an average, or, with ``relu`` and ``leaky_relu``, an upper bound,
        which assumes that they forget in every step. ``peak of a step`` is an estimate.

        Args:
            input, lengths, return_sequence, resets: as for :meth:`forward`.

        Raises:
            TypeError: an argument is of a wrong type or dtype.
            ValueError: an argument does not fit, or a module looks at values while it runs.
        """
        stack = self._stack()
        batch = self._batch(input, lengths, stack.blocks[0].recurrent_weight)
        load = Workload.of(batch, True, return_sequence, batch.arrange_resets(resets))
        print(f"{type(self).__name__}({self.extra_repr()})")
        print(f"input of {batch.steps} steps and batch {batch.size}, {return_sequence=}\n")
        print(auto.table(stack, load))

    def _batch(
        self, input: Tensor | PackedSequence, lengths: Tensor | Sequence[int] | None, like: Tensor
    ) -> SequenceBatch:
        features, tokens = self._input_features(), self._reads_tokens()
        return SequenceBatch.of(input, lengths, self.batch_first, like, features, tokens)

    def _choose(self, stack: Stack, load: Workload, record: bool) -> tuple[str, int, int]:
        """Return the strategy to run, its chunk length, and how many checkpoints it keeps.

        Without a budget, that is one at the beginning of every chunk, for which 0 stands. Where no
        gradient is recorded, none runs in fixed point.
        """
        memory, chunk, checkpoints = self.memory, 0, 0
        if memory == "auto":
            check_budget(memory, self.memory_budget)
        budget = self.memory_budget if memory in BUDGETED else None
        if budget is not None and (record or memory == "auto"):
            memory, chunk, checkpoints = self._pick(stack, load, budget)
        elif memory in OF_THE_STACK:
            chunk = chunk_length(memory, load.steps, load.batch, stack.widest)
        if memory in IN_FIXED_POINT and not record:
            fits = budget is None and load.real_steps * stack.widest <= WHOLE
            chunks = not (fits or observed() or stack.unsupported_reason("checkpoint"))
            memory = "checkpoint" if chunks else "recompute"
        return memory, chunk, checkpoints

    def _pick(self, stack: Stack, load: Workload, budget: int) -> tuple[str, int, int]:
        if transformed():
            raise NotImplementedError(
                f"memory={self.memory!r} with a memory_budget runs the modules without values, "
                "which transforms of torch.func do not allow; use memory='recompute' or 'store'"
            )
        before = self.picked and self.picked.memory
        picked = auto.choose(stack, load, self.memory, auto.parse_bytes(budget))
        self.picked = picked  # by whichever thread was last
        if picked.memory != before:
            _log.info("memory=%r picked %s", self.memory, auto.describe(picked, load))
        return picked.memory, picked.chunk, picked.checkpoints
