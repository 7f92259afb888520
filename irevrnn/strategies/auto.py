"""Choose the fastest strategy within a memory budget, and report the cost of each."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import count, islice

import torch

from irevrnn.strategies.chunks import SHORTEST
from irevrnn.strategies.revolve import fewest_checkpoints
from irevrnn.strategies.rules import (
    IN_FIXED_POINT,
    SEGMENT,
    check_initialised,
    obstacle,
    obstacle_of_weights,
    require,
)
from irevrnn.strategies.saved_bytes import Plan, Workload, plan
from irevrnn.strategies.stack import Stack

#: What ``auto`` picks from, fastest first.
CANDIDATES = ("recompute", "checkpoint", "reversible")
#: With more rounds, the stack mostly runs forward.
MOST_ROUNDS = 6

_UNITS = {"B": 1, "kB": 1000} | {
    f"{prefix}{infix}B": base**power
    for infix, base in (("", 1000), ("i", 1024))
    for power, prefix in enumerate("KMGT", start=1)
}


def parse_bytes(size: str | int) -> int:
    """Return the bytes that ``"256MB"``, ``"1.5 GiB"`` or a number of bytes stands for.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(size, int) and not isinstance(size, bool) and size > 0:
        return size
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]+)\s*", str(size))
    if not isinstance(size, str) or match is None or match[2] not in _UNITS or not float(match[1]):
        raise ValueError(
            "memory_budget must be a number of bytes, or text such as '256MB' or '1.5GiB' (units: "
            f"{', '.join(_UNITS)}); got {size!r}"
        )
    return int(float(match[1]) * _UNITS[match[2]])


def format_bytes(size: int) -> str:
    """Write a number of bytes for people, in decimal units."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} B"


def describe(option: Plan, load: Workload) -> str:
    """Describe a plan and its cost in one line."""
    chunks = f", chunks of {option.chunk} steps" if option.chunk else ""
    if option.checkpoints:
        chunks += f" and {option.checkpoints} checkpoints at once"
    return (
        f"{option.memory!r}{chunks}, for {load.steps} steps and batch {load.batch}: saves about "
        f"{format_bytes(option.saved)}, with a peak of about {format_bytes(option.peak)}"
    )


def why_not(stack: Stack, load: Workload, memory: str) -> str | None:
    """Return why a strategy cannot train a stack; None if it can."""
    reason = obstacle(
        memory,
        activations=[block.activation for block in stack.blocks],
        bidirectional=stack.directions == 2,
        modules=stack.named,
    ) or obstacle_of_weights(memory, stack.named_blocks)
    if reason or memory not in IN_FIXED_POINT:
        return reason
    if any(not block.recurrent_weight.abs().max() <= 1 for block in stack.blocks):
        return "a recurrent weight lies outside [-1, 1]"
    return None


def choose(stack: Stack, load: Workload, memory: str, budget: int) -> Plan:
    """Return the first plan whose peak is at most ``budget`` bytes.

    Without gradients no graph is made, and less is needed than any plan says: if no peak is, chunks
    run one by one.

    Args:
        stack: the modules that run.
        load: the sizes.
        memory: ``auto`` for any of :data:`CANDIDATES`, or ``checkpoint``.
        budget: bytes.

    Raises:
        ValueError: no plan's peak is, or ``checkpoint`` cannot serve.
    """
    check_initialised(memory, (p for module in stack.modules for p in module.parameters()))
    if memory != "auto":
        require(why_not(stack, load, memory))
    plans = []
    for option in options(stack, load, memory):
        if option.peak <= budget:
            return option
        plans.append(option)
    least = min(plans, key=lambda option: option.peak)  # recompute is always possible
    if not torch.is_grad_enabled():
        return next((option for option in plans if option.memory == "checkpoint"), least)
    impossible = [
        f"; {name!r} is impossible: {reason}"
        for name in CANDIDATES
        if memory == "auto" and (reason := why_not(stack, load, name))
    ]
    raise ValueError(
        f"memory_budget is {format_bytes(budget)}, but an input of {load.steps} steps and batch "
        f"{load.batch} needs at least {format_bytes(least.peak)} (memory={least.memory!r}"
        f"{''.join(impossible)}); raise the budget, shorten the input or split the batch"
    )


def options(stack: Stack, load: Workload, memory: str = "auto") -> Iterator[Plan]:
    """Return all plans that a budget may choose from, in order of preference.

    Long chunks are halved, down to a segment: in shorter ones the calls of operators take most of
    the time. Last come fewer and fewer checkpoints, for which the stack runs forward once more each
    time.
    """
    for candidate in CANDIDATES if memory == "auto" else (memory,):
        if why_not(stack, load, candidate):
            continue
        option = plan(stack, load, candidate)
        yield option
        while option.chunk > SEGMENT:
            chunk = option.chunk // 2 // SEGMENT * SEGMENT
            option = plan(stack, load, candidate, max(SEGMENT, chunk))
            yield option
    if not why_not(stack, load, "checkpoint"):
        yield from fewer_checkpoints(stack, load)


def fewer_checkpoints(stack: Stack, load: Workload) -> Iterator[Plan]:
    """Return plans of ``checkpoint`` with 2, 3, ... rounds (:mod:`irevrnn.strategies.revolve`)."""
    chunks = math.ceil(load.steps / SHORTEST)
    for rounds in count(2):
        checkpoints = fewest_checkpoints(chunks, rounds)
        if checkpoints >= chunks:
            return
        yield plan(stack, load, "checkpoint", SHORTEST, checkpoints)
        if checkpoints == 1 or rounds == MOST_ROUNDS:
            return


def table(stack: Stack, load: Workload) -> str:
    """Return a table of all strategies for people to read."""
    numbers = load.steps * load.batch * sum(block.hidden_size for block in stack.blocks) or 1
    rows = [("memory", "saved", "bits per unit and step", "peak of a step", "chunk", "checkpoints")]
    notes, plans = [], []
    for memory in ("store", *CANDIDATES):
        if reason := why_not(stack, load, memory):
            notes.append(f"{memory}: cannot be used, {reason}")
            continue
        plans.append(plan(stack, load, memory))
        if memory == "checkpoint":  # one example of what a budget makes of it
            plans += islice(fewer_checkpoints(stack, load), 1)
    for option in plans:
        rows.append(
            (
                option.memory,
                format_bytes(option.saved),
                f"{8 * option.saved / numbers:.3g}",
                format_bytes(option.peak),
                f"{option.chunk} steps" if option.chunk else "",
                f"{option.checkpoints} at once" if option.checkpoints else "",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{x:<{w}}" for x, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in (*lines, *notes))
