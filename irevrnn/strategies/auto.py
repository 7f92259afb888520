"""Choose the fastest plan within a memory budget, and report the cost of each strategy."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from fractions import Fraction
from numbers import Integral

import torch

from irevrnn.backend import choose_backend
from irevrnn.ops import HALF
from irevrnn.strategies.chunks import MOST_NUMBERS, chunk_length
from irevrnn.strategies.revolve import fewest_checkpoints
from irevrnn.strategies.rules import (
    IN_FIXED_POINT,
    OF_A_LAYER,
    OF_THE_STACK,
    SEGMENT,
    check_initialised,
    require,
)
from irevrnn.strategies.saved_bytes import Plan, plan
from irevrnn.strategies.stack import Stack
from irevrnn.strategies.workload import Workload

#: What ``auto`` picks from: the time of a training step as a multiple of the first one's, if
#: chunks are long. Measured with four gated blocks on a CPU (notebook 09); it orders plans only.
TIMES = {"recompute": 1.0, "checkpoint": 1.35, "reversible": 1.5}
CANDIDATES = tuple(TIMES)
#: The same for every further round of ``checkpoint``, a forward pass.
TIME_OF_ROUND = 0.35
#: With one round, all states are kept; with 1.5, half of them; with more than 6, the stack mostly
#: runs forward.
MORE_ROUNDS = (1.5, 2, 3, 4, 5, 6)
#: Calling the operators of a chunk takes as long as computing so many numbers of a block's output.
CALLS_OF_A_CHUNK = 22_000

_UNITS = {"B": 1, "kB": 1000} | {
    f"{prefix}{infix}B": base**power
    for infix, base in (("", 1000), ("i", 1024))
    for power, prefix in enumerate("KMGT", start=1)
}


def parse_bytes(size: str | float) -> int:
    """Return the bytes that ``"256MB"``, ``"1.5 GiB"`` or a number of bytes stands for.

    Raises:
        ValueError: it is neither, or less than a byte.
    """
    whole = isinstance(size, Integral) or (isinstance(size, float) and size.is_integer())
    count = int(size) if whole and not isinstance(size, bool) else 0
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]+)\s*", str(size))
    if isinstance(size, str) and match is not None and match[2] in _UNITS:
        count = int(Fraction(match[1]) * _UNITS[match[2]])
    if count < 1:
        raise ValueError(
            "memory_budget must be a whole number of bytes, or text such as '256MB' or "
            f"'1.5GiB' (units: {', '.join(_UNITS)}); got {size!r}"
        )
    return count


def format_bytes(size: int) -> str:
    """Write a number of bytes for people, in decimal units."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= 0.9995 * factor:  # which is rounded to 1
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


def why_not(stack: Stack, memory: str) -> str | None:
    """Return why a strategy cannot train a stack; None if it can."""
    reason = stack.unsupported_reason(memory)
    if reason or memory not in IN_FIXED_POINT:
        return reason
    like = stack.blocks[0].recurrent_weight
    if like.dtype in HALF:
        return f"memory={memory!r} takes parameters of float32 or float64; got {like.dtype}"
    if choose_backend(like.device.type, like.dtype) == "python":
        return f"memory={memory!r} needs the compiled kernels, which are not there"
    if any(not block.recurrent_weight.abs().max() <= 1 for block in stack.blocks):
        return (
            f"memory={memory!r} needs recurrent weights in [-1, 1], but one lies outside: call "
            "clip_recurrent_weights_()"
        )
    return None


def choose(stack: Stack, load: Workload, memory: str, budget: int) -> Plan:
    """Return the first plan whose peak is at most ``budget`` bytes.

    Without gradients no graph is made, and less is needed than any plan says: if no peak is, chunks
    run one by one.

    Args:
        stack: the modules that run.
        load: the sizes.
        memory: ``auto`` for any of :data:`CANDIDATES`, or one of those that work in chunks.
        budget: bytes.

    Raises:
        ValueError: no plan's peak is, or the strategy cannot serve.
    """
    check_initialised(memory, (p for module in stack.modules for p in module.parameters()))
    if memory != "auto":
        require(why_not(stack, memory))
    plans = []
    for option in options(stack, load, memory):
        if option.peak <= budget:
            return option
        plans.append(option)
    least = min(plans, key=lambda option: option.peak)  # recompute is always possible
    if not torch.is_grad_enabled():
        return next((option for option in plans if option.memory in OF_THE_STACK), least)
    impossible = [
        f"; {name!r} is impossible: {reason}"
        for name in CANDIDATES
        if memory == "auto" and (reason := why_not(stack, name))
    ]
    raise ValueError(
        f"memory_budget is {format_bytes(budget)}, but an input of {load.steps} steps and batch "
        f"{load.batch} needs at least {format_bytes(least.peak)} (memory={least.memory!r}"
        f"{''.join(impossible)}); raise the budget, shorten the input or split the batch"
    )


def options(stack: Stack, load: Workload, memory: str = "auto") -> Iterator[Plan]:
    """Return all plans that a budget may choose from, the one expected to be fastest first."""
    candidates = CANDIDATES if memory == "auto" else (memory,)
    possible = [each for each in candidates if not why_not(stack, each)]
    found = [each for name in possible for each in _variants(stack, load, name)]
    for _, name, chunk, checkpoints in sorted(found):
        yield plan(stack, load, name, chunk, checkpoints)


def _variants(stack: Stack, load: Workload, memory: str) -> Iterator[tuple[float, str, int, int]]:
    """Return the expected time of a strategy, its name, a chunk's length, and its checkpoints.

    Chunks begin with the length that is fastest and are halved, down to a segment; with each,
    ``checkpoint`` keeps fewer and fewer states, for which the stack runs forward more and more
    often (:mod:`irevrnn.strategies.revolve`).
    """
    if memory in OF_A_LAYER:
        yield TIMES[memory], memory, 0, 0
        return
    hidden = stack.widest
    chunk = min(load.steps, chunk_length(memory, load.steps, load.batch, hidden, MOST_NUMBERS))
    while True:
        calls = 1 + CALLS_OF_A_CHUNK / (chunk * max(1, load.batch) * hidden)
        yield calls * TIMES[memory], memory, chunk, 0
        chunks = math.ceil(load.steps / chunk)
        for rounds in MORE_ROUNDS if memory == "checkpoint" else ():
            checkpoints = fewest_checkpoints(chunks, rounds)
            if checkpoints < chunks:
                time = TIMES[memory] + (rounds - 1) * TIME_OF_ROUND
                yield calls * time, memory, chunk, checkpoints
        if chunk <= SEGMENT:
            return
        chunk = max(SEGMENT, chunk // 2 // SEGMENT * SEGMENT)


def table(stack: Stack, load: Workload) -> str:
    """Return a table of all strategies for people to read."""
    numbers = load.steps * load.batch * sum(block.hidden_size for block in stack.blocks) or 1
    rows = [("memory", "saved", "bits per unit and step", "peak of a step", "chunk", "checkpoints")]
    notes, plans = [], []
    for memory in ("store", *CANDIDATES):
        if reason := why_not(stack, memory):
            notes.append(f"{memory}: cannot be used, {reason}")
            continue
        plans.append(plan(stack, load, memory))
        if memory == "checkpoint":  # one example of what a budget makes of it
            chunks = math.ceil(load.steps / plans[-1].chunk)
            checkpoints = fewest_checkpoints(chunks, 2)
            if checkpoints < chunks:
                plans.append(plan(stack, load, memory, plans[-1].chunk, checkpoints))
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
