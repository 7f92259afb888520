"""Meet a memory budget: choose the strategy, the length of chunks and the number of checkpoints.

The first steps are measured (:mod:`irevrnn.strategies.measure`), and so is what the process takes
for the code that they load. The costs of longer passes follow from these, and so does
:class:`MemoryReport`, which tells what training would need under each strategy.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

from torch import Tensor

from irevrnn.kernels.ops import SEGMENT
from irevrnn.recurrences.fixed_scan import vectorizes
from irevrnn.recurrences.packing import Steps
from irevrnn.strategies.chunkwise import parameters_of, run_chunkwise
from irevrnn.strategies.layerwise import run_layerwise
from irevrnn.strategies.measure import SLACK, Costs, Measured, measure
from irevrnn.strategies.reversible import GROUP_BYTES, HASHES, PARTS
from irevrnn.strategies.revolve import fewest_checkpoints
from irevrnn.strategies.rules import CHUNKWISE, LAYERWISE, require, unsupported_reason
from irevrnn.strategies.stack import Stack
from irevrnn.strategies.strategy import MOST_NUMBERS, SHORTEST, Plan, States, chunk_length

#: How often, at most, a chunk runs forward before it runs with its graph: with one round, all
#: states are kept; with more than 6, the stack mostly runs forward.
ROUNDS = range(1, 7)
#: The share of a chunk's memory that allocators keep beside it.
KEPT = 1 / 3
#: The outputs of one layer over a chunk that are as large as what fragmentation of the heap adds.
FRAGMENTS = 8
#: The most bit stacks of a block on a CPU, each with a partial word, a place and counts.
STACKS = 16
_UNITS = {"B": 1, "kB": 1000} | {
    f"{prefix}{infix}B": base**power
    for infix, base in (("", 1000), ("i", 1024))
    for power, prefix in enumerate("KMGT", start=1)
}


@dataclass
class Workload:
    """A pass of a stack over x, from states before its first step, and what is known of its cost.

    Attributes:
        padded: whether x was packed from a padded input.
        costs: those of the strategies that were measured.
        before: bytes that were resident before the pass; 0 without a budget.
        loaded: bytes that the process took to run the first steps, for code above all.
    """

    stack: Stack
    x: Tensor
    states: States
    steps: Steps
    return_sequence: bool
    padded: bool
    costs: dict[str, Costs]
    before: int
    loaded: int = 0

    @property
    def whole(self) -> str:
        """The strategy that runs all steps at once: recurrences without kernels know but one."""
        return "store" if self.stack.label == "rnn" else "recompute"

    def measure(self, memory: str) -> Costs:
        """Return the costs of a strategy: of all steps, or of one chunk if it runs in chunks."""
        if memory not in self.costs:
            self.costs[memory] = Costs(*(self._measure(memory, n * SEGMENT) for n in (1, 2)))
            if self.before and self.x.is_cpu:
                now = self._measure(memory, SHORTEST, SHORTEST // 2).resident
                self.loaded = max(self.loaded, now - self.before)
        return self.costs[memory]

    def _measure(self, memory: str, length: int, chunk: int = 0) -> Measured:
        """Measure so many steps, at most, in chunks or in one."""

        def run(x: Tensor, states: States, steps: Steps) -> Any:
            if memory in CHUNKWISE:
                plan = Plan(memory, chunk or steps.end)
                return run_chunkwise(self.stack, plan, x, states, steps, self.return_sequence)
            return run_layerwise(self.stack, memory, x, states, steps, self.return_sequence)

        steps = self.steps.part(0, min(self.steps.end, length))
        return measure(self.stack, self.x, self.states, steps, run)

    def usual_chunk(self, memory: str, numbers: int | None = None) -> int:
        """Return the steps of a chunk of about this many numbers, or of as many as usual."""
        size = self.steps.batch, widest(self.stack), self.stack.compiles
        return chunk_length(memory, self.steps.end, *size, numbers)

    def plan(self, memory: str, chunk: int = 0, checkpoints: int = 0) -> Plan:
        """Return a plan with its cost."""
        steps, costs = self.steps.end, self.measure(memory)
        saved, peak, output = costs.of(steps)
        outside = SLACK + self.loaded
        if self.padded:  # x and the output are packed, and sorted
            outside += math.ceil(2 * self.x.nbytes * (1 + self.x.requires_grad) + 5 * output)
        if memory in LAYERWISE:
            peak = math.ceil(peak * (1 + KEPT) + outside)
            return Plan(memory, saved=math.ceil(saved), peak=peak)
        chunk = min(steps, chunk or self.usual_chunk(memory))
        number = math.ceil(steps / chunk)
        if memory == "checkpoint":
            kept = checkpoints or number
            own = (kept + 1) * costs.short.state
            again = own if kept < number else 0  # the states between, computed again
        else:
            own, again = self._reversible(number), 0
        output = chunk * self.steps.batch * widest(self.stack) * self.x.element_size()
        graph = costs.of(chunk)[1] * (1 + KEPT) + FRAGMENTS * output
        # A chunk has gradients of parameters of its own, which are added up, in float32 at least.
        sums = sum(p.numel() * max(4, p.element_size()) for p in parameters_of(self.stack))
        peak = math.ceil(own + again + graph + sums + outside)
        return Plan(memory, chunk, checkpoints, graph=int(graph), saved=own, peak=peak)

    def _reversible(self, chunks: int) -> int:
        """Return the bytes of final states, hashes, and bits that decays forget on average."""
        recurrences: Any = self.stack.recurrences
        rows = self.x.shape[0] * (1 if self.steps.packing else self.steps.batch)
        bits = rows * sum(r.expected_bits() for r in recurrences)
        if self.steps.resets is not None:  # each stores two states of 32 bits
            bits += int(self.steps.resets.sum()) * 64 * sum(r.width for r in recurrences)
        groups = min(chunks, PARTS + math.ceil(bits / 8 / GROUP_BYTES)) if bits else 1
        numbers = len(recurrences) * (2 * STACKS + groups * (1 + STACKS) + HASHES)
        states = 2 * self.measure("reversible").short.state  # h, c and their scales
        return math.ceil(bits / 8) + states + 8 * numbers

    def plans(self, memory: str) -> Iterator[Plan]:
        """Return all plans that a budget may choose from, faster ones first."""
        if memory == "auto":
            yield self.plan(self.whole)
            if unsupported_reason(self.stack, "checkpoint"):
                return
            memory = "checkpoint"
        steps = self.steps.end
        most = self.usual_chunk("reversible", MOST_NUMBERS)
        lengths = [min(most, math.ceil(steps / SEGMENT) * SEGMENT)]
        while (half := lengths[-1] // 2 // SEGMENT * SEGMENT) >= SEGMENT:
            lengths.append(half)
        for shortest in (SHORTEST, SEGMENT):
            for rounds in ROUNDS if memory == "checkpoint" else ROUNDS[:1]:
                for chunk in (min(n, steps) for n in lengths if n >= shortest):
                    number = math.ceil(steps / chunk)
                    kept = fewest_checkpoints(number, rounds) if rounds > 1 else 0
                    if kept < number:
                        yield self.plan(memory, chunk, kept)


def widest(stack: Stack) -> int:
    """Return the most units of a recurrence."""
    return max(r.width for r in stack.recurrences)


def choose(load: Workload, memory: str, budget: int) -> Plan:
    """Return the first plan whose peak is at most ``budget`` bytes, else raise a ValueError."""
    plans = []
    for plan in load.plans(memory):
        if plan.peak <= budget:
            left = budget - plan.peak + plan.saved
            return replace(plan, most_bits=left) if plan.memory == "reversible" else plan
        plans.append(plan)
    least = min(plans, key=lambda plan: plan.peak)
    code = f", {format_bytes(load.loaded)} of them for code" if load.loaded else ""
    reason = unsupported_reason(load.stack, "checkpoint") if memory == "auto" else None
    impossible = f"; 'checkpoint' is impossible: {reason}" if reason else ""
    raise ValueError(
        f"memory_budget is {format_bytes(budget)}, but an input of {load.steps.end} steps and "
        f"batch {load.steps.batch} needs at least {format_bytes(least.peak)}{code} "
        f"(memory={least.memory!r}{impossible}); raise the budget, shorten the input or split the "
        "batch"
    )


def parse_bytes(size: str | float) -> int:
    """Return the bytes that ``"256MB"``, ``"1.5 GiB"`` or a number of bytes stands for."""
    whole = isinstance(size, Integral) or (isinstance(size, float) and size.is_integer())
    count = int(size) if whole and not isinstance(size, bool) else 0
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]+)\s*", str(size))
    if isinstance(size, str) and match is not None and match[2] in _UNITS:
        count = round(float(match[1]) * _UNITS[match[2]])
    if count < 1:
        raise ValueError(
            "memory_budget must be a whole number of bytes, or text such as '256MB' or "
            f"'1.5GiB' (units: {', '.join(_UNITS)}); got {size!r}"
        )
    return count


def format_bytes(size: int) -> str:
    """Format a number of bytes in decimal units."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= 0.9995 * factor:  # which is rounded to 1
            return f"{size / factor:.3g} {unit}"
    return f"{size} B"


@dataclass(frozen=True, repr=False)
class MemoryReport:
    """The memory that training on an input needs under each strategy; ``print`` shows a table.

    Attributes:
        plans: one or more for each strategy, with their ``saved`` and ``peak`` bytes.
        reasons: why each of the other strategies cannot be used, by its name.
    """

    plans: tuple[Plan, ...]
    reasons: dict[str, str]
    steps: int
    batch: int

    def __repr__(self) -> str:
        """Return the table."""
        rows = [("memory", "saved", "peak of a step", "chunk", "checkpoints")]
        for plan in self.plans:
            chunk = f"{plan.chunk} steps" if plan.chunk else ""
            kept = f"{plan.checkpoints} at once" if plan.checkpoints else ""
            sizes = format_bytes(plan.saved), format_bytes(plan.peak)
            rows.append((plan.memory, *sizes, chunk, kept))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(f"{x:<{w}}" for x, w in zip(row, widths, strict=True)) for row in rows]
        notes = [f"{name}: cannot be used, {reason}" for name, reason in self.reasons.items()]
        title = f"{self.steps} steps, batch {self.batch}"
        return "\n".join(line.rstrip() for line in (title, *lines, *notes))


def memory_report(load: Workload) -> MemoryReport:
    """Measure the first steps of a pass, and return what it needs under each strategy."""
    plans, reasons = [], {}
    for memory in dict.fromkeys(("store", load.whole, "checkpoint", "reversible")):
        try:
            require(unsupported_reason(load.stack, memory))
            if memory == "reversible":
                vectorizes(load.stack.like)
        except (ValueError, RuntimeError) as error:
            reasons[memory] = str(error)
            continue
        plans.append(load.plan(memory))
        if memory == "checkpoint":  # one example of what a budget makes of it
            chunk = plans[-1].chunk
            chunks = math.ceil(load.steps.end / chunk)
            if (few := fewest_checkpoints(chunks, 2)) < chunks:
                plans.append(load.plan(memory, chunk, few))
    return MemoryReport(tuple(plans), reasons, load.steps.end, load.steps.batch)
