"""Tell what training would need under each strategy: :class:`MemoryReport`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from irevrnn.strategies.budget import Workload, format_bytes, why_not
from irevrnn.strategies.plan import Plan
from irevrnn.strategies.revolve import fewest_checkpoints


@dataclass(frozen=True, repr=False)
class MemoryReport:
    """The memory that training on an input needs under each strategy; ``print`` shows a table.

    Attributes:
        plans: one or more for each strategy, with their ``saved`` and ``peak`` bytes.
        reasons: why each of the other strategies cannot be used, by its name.
        steps, batch: of the input.
    """

    plans: tuple[Plan, ...]
    reasons: dict[str, str]
    steps: int
    batch: int

    def __repr__(self) -> str:
        """Return the table."""
        rows = [("memory", "saved", "peak of a step", "chunk", "checkpoints")]
        for plan in self.plans:
            rows.append(
                (
                    plan.memory,
                    format_bytes(plan.saved),
                    format_bytes(plan.peak),
                    f"{plan.chunk} steps" if plan.chunk else "",
                    f"{plan.checkpoints} at once" if plan.checkpoints else "",
                )
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(f"{x:<{w}}" for x, w in zip(row, widths, strict=True)) for row in rows]
        notes = [f"{name}: cannot be used, {reason}" for name, reason in self.reasons.items()]
        title = f"{self.steps} steps, batch {self.batch}"
        return "\n".join(line.rstrip() for line in (title, *lines, *notes))


def memory_report(load: Workload) -> MemoryReport:
    """Measure the first steps of a pass, and return what it needs under each strategy."""
    names = dict.fromkeys(("store", load.whole, "checkpoint", "reversible"))
    reasons = {name: reason for name in names if (reason := why_not(load.stack, name))}
    plans = []
    for memory in names:
        if memory in reasons:
            continue
        plans.append(load.plan(memory))
        if memory == "checkpoint":  # one example of what a budget makes of it
            chunk = plans[-1].chunk
            chunks = math.ceil(load.steps.end / chunk)
            if (few := fewest_checkpoints(chunks, 2)) < chunks:
                plans.append(load.plan(memory, chunk, few))
    return MemoryReport(tuple(plans), reasons, load.steps.end, load.steps.batch)
