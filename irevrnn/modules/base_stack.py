"""The base of what runs a stack under a strategy: ``IRevRNN``, ``IRevStack``, ``ThroughTime``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from irevrnn.kernels.observers import autocasts, observed, traced, transformed
from irevrnn.modules.checks import check_input
from irevrnn.modules.sequences import Hidden, SequenceBatch, final_states, initial_states
from irevrnn.modules.stability import Recurrent
from irevrnn.modules.stepping import Stepper, is_plain
from irevrnn.recurrences.block import BlockRecurrence
from irevrnn.strategies import budget, rules
from irevrnn.strategies.chunkwise import parameters_of, records, run_chunkwise
from irevrnn.strategies.layerwise import run_layerwise
from irevrnn.strategies.measure import resident_bytes
from irevrnn.strategies.stack import Stack, reads_tokens
from irevrnn.strategies.strategy import Plan, chunk_length, flat

#: Numbers of one recurrence's states up to which inference with ``reversible`` runs layer by layer.
WHOLE = 2**24
#: Measurements that a stack keeps, one for each batch size and form of the input.
MOST_COSTS = 64


class StrategyModule(nn.Module):
    """A module that runs a stack under a strategy."""

    _strategies: tuple[str, ...] = rules.STRATEGIES  # that ``memory`` may name

    def __init__(self, memory: str, memory_budget: float | str | None) -> None:
        super().__init__()
        self.memory = memory
        rules.check_budget(memory, memory_budget)
        self.memory_budget = None if memory_budget is None else budget.parse_bytes(memory_budget)
        self.picked: Plan | None = None
        self._forgotten: tuple[float, list[Tensor]] | None = None
        self._costs: dict[Any, tuple[dict[str, Any], int]] = {}
        self._stepper: Stepper | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        """Check a strategy when it is set after construction, too."""
        if name == "memory" and value not in self._strategies:
            known = ", ".join(self._strategies)
            raise ValueError(f"memory must be one of {known}; got {value!r}")
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out costs, whose keys hold classes that may have no name, and the last pass."""
        return super().__getstate__() | {"_costs": {}, "_forgotten": None, "_stepper": None}

    def _stack(self) -> Stack:
        """Return the modules as they are to run."""
        raise NotImplementedError

    def _batch(self, stack: Stack, input: Any, lengths: Any) -> SequenceBatch:
        """Check an input, and bring it into the form of the stack."""
        raise NotImplementedError

    def _run(
        self, input: Any, hidden: Any, lengths: Any, resets: Any, return_sequence: bool = True
    ) -> tuple[Any, Any]:
        """Run the stack over all steps by the strategy."""
        before = 0 if self.memory_budget is None else resident_bytes()
        stack = self._stack()
        batch = self._batch(stack, input, lengths)
        states = initial_states(stack, batch, hidden)
        x, steps = batch.x, batch.all_steps(resets)
        plain = self.memory not in ("auto", *rules.IN_FIXED_POINT)
        record = plain or records(x, *flat(states), *parameters_of(stack))
        load = budget.Workload(stack, x, states, steps, return_sequence, batch.padded, {}, before)
        plan = self._choose(load, record)
        if plan.memory in rules.CHUNKWISE:
            output, finals = run_chunkwise(stack, plan, x, states, steps, return_sequence)
        else:
            output, finals = run_layerwise(stack, plan.memory, x, states, steps, return_sequence)
        *chosen, self._forgotten = *finals.pop(), None
        if not torch.compiler.is_exporting():
            rows = len(x) if steps.packing is not None else len(x) * steps.batch
            self._forgotten = rows / max(1, steps.batch), [bits / steps.batch for bits in chosen]
        return batch.restore(output, return_sequence), final_states(stack, batch, finals)

    def _choose(self, load: budget.Workload, record: bool) -> Plan:
        """Return the plan to run; where no gradient is recorded, none runs in fixed point."""
        memory, stack, steps = self.memory, load.stack, load.steps
        if memory == "auto":
            rules.check_budget(memory, self.memory_budget)
        limit = self.memory_budget if memory in rules.BUDGETED else None
        if limit is not None and record and torch.is_grad_enabled():
            return self._pick(load, budget.parse_bytes(limit))
        if memory in rules.IN_FIXED_POINT and not record or memory == "auto":
            fits = limit is None and load.x.shape[0] * steps.batch * budget.widest(stack) <= WHOLE
            whole = fits or observed() or rules.unsupported_reason(stack, "checkpoint")
            memory = "recompute" if whole else "checkpoint"
        if memory not in rules.CHUNKWISE:
            return Plan(memory)
        length = chunk_length(memory, steps.end, steps.batch, budget.widest(stack), stack.compiles)
        return Plan(memory, length)

    def _pick(self, load: budget.Workload, limit: int) -> Plan:
        if transformed() or traced():
            raise NotImplementedError(
                f"memory={self.memory!r} with a memory_budget measures a pass over the first steps,"
                " which cannot be transformed or recorded; use memory='recompute' or 'store'"
            )
        rules.check_initialised(self.memory, parameters_of(load.stack))
        key = _key(load)
        load.costs, load.loaded = self._costs.get(key, ({}, 0))
        plan = budget.choose(load, self.memory, limit)
        if len(self._costs) >= MOST_COSTS:
            self._costs.clear()
        self._costs[key] = load.costs, load.loaded
        self.picked = plan  # by whichever thread was last
        return plan

    def memory_report(
        self, input: Tensor | PackedSequence, *, lengths: Tensor | Sequence[int] | None = None,
        return_sequence: bool = True, resets: Tensor | None = None,
    ) -> budget.MemoryReport:  # fmt: skip
        """Return what training on ``input`` would need under each strategy: saved bytes and peak.

        All strategies are compared, whatever ``memory`` is, by a pass over the first steps. What
        ``reversible`` saves is an average of what decays forget; ``relu`` and ``leaky_relu`` count
        as if they forgot in every step. Arguments are those of :meth:`forward`. ``print`` shows
        the report as a table.
        """
        stack = self._stack()
        batch = self._batch(stack, input, lengths)
        states, steps = stack.initial_states(batch.size), batch.all_steps(resets)
        load = budget.Workload(stack, batch.x, states, steps, return_sequence, batch.padded, {}, 0)
        return budget.memory_report(load)

    def extra_repr(self) -> str:
        limit = "" if self.memory_budget is None else f", memory_budget={self.memory_budget}"
        return f"memory={self.memory!r}{limit}"


class BaseStack(Recurrent, StrategyModule):
    """A stack of blocks and other modules."""

    def __init__(self, memory: str, memory_budget: float | str | None, batch_first: bool) -> None:
        super().__init__(memory, memory_budget)
        self.batch_first = batch_first

    def forward(
        self, input: Tensor | PackedSequence, hidden: Hidden | None = None, *,
        lengths: Tensor | Sequence[int] | None = None, return_sequence: bool = True,
        resets: Tensor | None = None,
    ) -> tuple[Tensor | PackedSequence, Hidden]:  # fmt: skip
        """Run the stack over a sequence; see the class for shapes."""
        if torch.compiler.is_compiling():
            packed = lengths is not None or isinstance(input, PackedSequence)
            if reason := rules.not_a_graph(self.memory, packed):
                if torch.compiler.is_exporting():
                    raise ValueError(f"this forward pass cannot be exported: {reason}")
                from irevrnn.kernels.compiling import run_uncompiled

                options = {"lengths": lengths, "return_sequence": return_sequence, "resets": resets}
                return run_uncompiled(self.forward, input, hidden, **options)
        return self._run(input, hidden, lengths, resets, return_sequence)

    def step(self, input: Tensor, hidden: Hidden | None = None) -> tuple[Tensor, Hidden]:
        """Run one step of a stream, without gradients; return the output and the states after it.

        It is :meth:`forward` for a sequence of one step, up to the rounding of matrix products, and
        several times as fast where all blocks are :class:`irevrnn.IRevBlock` of one kind, in
        float32 on a CPU. For gradients, call the stack.

        Args:
            input: (batch, in), or (in,) without a batch; for an ``nn.Embedding``, integers without
                the last dimension.
            hidden: as for :meth:`forward`.
        """
        if is_plain(input, hidden):
            if self._stepper is None or not self._stepper.holds():
                self._stepper = Stepper(self, self._stack())
            if self._stepper.fits:
                state: Any = hidden
                output, h, c = self._stepper.step(input, *state)
                return output, (h, c)
        if not isinstance(input, Tensor):
            raise TypeError(f"input must be a torch.Tensor; got {type(input).__name__}")
        stack = self._stack()
        if stack.reverse:
            raise ValueError("step needs bidirectional=False: a stream has no end to begin from")
        tokens = stack.layers[0] is None and reads_tokens(stack.modules[0])
        batched = input.dim() == (1 if tokens else 2)
        time = 1 if batched and self.batch_first else 0
        with torch.no_grad():
            output, hidden = self(input.unsqueeze(time), hidden)
        return output.squeeze(time), hidden

    def stored_bits(self) -> Tensor:
        """Return the bits per sequence that reversal of the last forward pass stores, a scalar.

        They are those that decays forget (``eq:stored``), on average, whatever ``memory`` is. Their
        gradient goes to recurrent weights and, where the input chooses decays, to what chose them:
        with ``loss + price * stack.stored_bits()`` a network learns what is worth forgetting.

        Raises:
            RuntimeError: there was no forward pass.
            ValueError: a block has another ``activation`` than ``"identity"``, which forgets, too.
        """
        if self._forgotten is None:
            raise RuntimeError("stored_bits needs a forward pass first")
        steps, chosen = self._forgotten
        blocks = [r for r in self._stack().recurrences if isinstance(r, BlockRecurrence)]
        weights = [block.bits_of_weights() for block in blocks]
        return torch.stack([*(steps * bits for bits in weights), *chosen]).sum()

    def _batch(self, stack: Stack, input: Any, lengths: Any) -> SequenceBatch:
        tokens = stack.layers[0] is None and reads_tokens(stack.modules[0])
        check_input(input, self.batch_first, stack.like, tokens, getattr(self, "input_size", None))
        if isinstance(input, PackedSequence):
            packed = input._replace(data=input.data.unsqueeze(-1)) if tokens else input
            return SequenceBatch.of(packed, lengths, self.batch_first)
        batched = input.dim() == (2 if tokens else 3)
        input = input.unsqueeze(-1) if tokens else input
        return SequenceBatch.of(input, lengths, self.batch_first, batched)


def _key(load: budget.Workload) -> tuple[Any, ...]:
    """Return what the costs of the first steps depend on."""
    x, steps = load.x, load.steps
    modules = [each for m in (*load.stack.modules, *load.stack.reverse) for each in m.modules()]
    parameters = [p for each in modules for p in each.parameters(recurse=False)]
    return (
        (steps.batch, x.shape[1:], x.dtype, x.device, x.requires_grad, x.is_contiguous()),
        (steps.packing is None, steps.resets is None, load.return_sequence, steps.end < 32),
        autocasts(x.device.type) and torch.get_autocast_dtype(x.device.type),
        tuple((type(each), each.training) for each in modules),
        tuple((p.requires_grad, p.dtype, p.device, p.shape) for p in parameters),
    )
