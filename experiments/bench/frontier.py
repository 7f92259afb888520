"""Measure a training step of four gated blocks and of their rivals: its time and its memory.

Notebook 06 measures them against the length, and at several lengths of a chunk with, for
checkpoints, fewer and fewer of them kept. Every measurement has a process of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from experiments.bench.measure import (
    growth_of_peak,
    in_fresh_process,
    saved_bytes,
    wall_clock,
)
from experiments.files import write_text
from experiments.provenance import provenance
from irevrnn import IRevBlock, IRevStack, ThroughTime
from irevrnn.strategies.revolve import fewest_checkpoints
from irevrnn.strategies.strategy import Plan

WIDTH, HIDDEN, BLOCKS = 64, 64, 4
#: How often a chunk runs forward before it runs with its graph. Up to 2 this is the average: r
#: rounds keep a share 2 - r of the checkpoints of one round. From 2 on it is the most.
ROUNDS = (1, 1.25, 1.5, 2, 3)
#: What units remember, for reversal, which alone depends on it: options of the blocks.
MEMORIES: dict[str, dict[str, Any]] = {
    "u = 1": {"forgets": False, "longest_memory": 200.0},
    "up to 1,000 steps": {"longest_memory": 1000.0},
    "up to 10 steps": {"longest_memory": 10.0, "longest_period": 20.0},
}
#: Steps of the longest chunk of those measured, whether chosen here or by a strategy.
LONGEST_CHUNK = 1024
#: What is compared against the length: a method, and what its units remember.
LINES = {
    "recompute": ("recompute", "up to 1,000 steps"),
    "checkpoint": ("checkpoint", "up to 1,000 steps"),
    "reversible": ("reversible", "up to 1,000 steps"),
    "reversible, u = 1": ("reversible", "u = 1"),
    "store": ("store", "up to 1,000 steps"),
    "nn.LSTM": ("lstm", ""),
    "ThroughTime(nn.LSTM)": ("through_time", ""),
}
#: What is measured in several processes if asked for: reversal without bits and its rivals, by
#: method, rounds and memories.
RIVALS = {
    ("reversible", 0, "u = 1"),
    *(("checkpoint", rounds, "up to 1,000 steps") for rounds in ROUNDS if rounds <= 2),
}
#: Steps times sequences from which on these alone are measured: a step takes minutes.
MANY = 4_000_000
#: Steps are repeated until they have taken this time, and the fastest counts. Page faults slow the
#: first one down: it counts alone if it is so long, for the bytes it adds, that they do not matter.
SECONDS, LONG, FEW_BYTES_PER_SECOND = 0.5, 3.0, 5e7
#: Methods that would add more than this to the process are left out.
MOST_BYTES = 4e9
#: Bytes that methods that keep every step add for each step and sequence, to tell that before.
BYTES_PER_STEP = {"lstm": 13_000, "store": 10_000, "recompute": 7_500}


class Case(NamedTuple):
    """One measurement.

    Attributes:
        method: a strategy, ``lstm``, ``through_time`` around it, or ``torch_checkpoint``.
        steps, batch: T and B.
        chunk: steps in a chunk; 0 leaves the choice to the strategy.
        rounds: one of :data:`ROUNDS`, for ``checkpoint``.
        memories: a key of :data:`MEMORIES`.
    """

    method: str
    steps: int
    batch: int
    chunk: int = 0
    rounds: float = 0
    memories: str = "up to 1,000 steps"


def cases(steps: int, batch: int, chunks: tuple[int, ...]) -> Iterator[Case]:
    """Return the measurements at a size, for chunks of these lengths."""
    every = _all_cases(steps, batch, chunks)
    return filter(_is_rival, every) if steps * batch >= MANY else every


def _is_rival(case: Case) -> bool:
    return (case.method, case.rounds, case.memories) in RIVALS


def _all_cases(steps: int, batch: int, chunks: tuple[int, ...]) -> Iterator[Case]:
    for method, growth in BYTES_PER_STEP.items():
        if growth * steps * batch <= MOST_BYTES:
            yield Case(method, steps, batch)
    for chunk in chunks:
        yield Case("torch_checkpoint", steps, batch, chunk)
        for rounds in ROUNDS:
            number = -(-steps // chunk)
            kept = fewest_checkpoints(number, rounds)
            between = 1 < rounds < 2
            if between and kept == fewest_checkpoints(number, 2):
                continue  # so few chunks that this is two rounds
            if rounds == 1 or kept < number:
                yield Case("checkpoint", steps, batch, chunk, rounds)
        for memories in MEMORIES:
            yield Case("reversible", steps, batch, chunk, 0, memories)


def measure(case: Case) -> dict[str, Any]:
    """Measure a training step in this process, a new one.

    Returns the case, ``peak_bytes`` that a step adds to the resident memory, ``saved_bytes``
    between the passes, and ``seconds`` of the fastest repetition.
    """
    torch.manual_seed(0)
    run, parameters = _build(case)
    x = torch.randn(case.batch, case.steps, 1, generator=torch.Generator().manual_seed(0))

    def step(x: Tensor = x) -> None:
        run(x).square().sum().backward()
        for parameter in parameters:
            parameter.grad = None

    # Loads the code for chunks of this length, also what only runs when large values make units
    # coarser: it would count as memory of the first step that needs it.
    step(100 * x[:, : 2 * LONGEST_CHUNK])
    times: list[float] = []

    def timed() -> None:
        times.append(wall_clock(step))

    peak = growth_of_peak(lambda: timed)
    if times[0] < LONG or peak > FEW_BYTES_PER_SECOND * times[0]:
        timed()
    while sum(times) < SECONDS:
        timed()
    saved = saved_bytes(lambda: run(x), exclude=[x, *parameters], exclude_output=True)
    return case._asdict() | {"peak_bytes": peak, "saved_bytes": saved, "seconds": min(times)}


def _build(case: Case) -> tuple[Callable[[Tensor], Tensor], list[nn.Parameter]]:
    """Return a function of (B, T, 1) to the last output (B, width), and its parameters."""
    if case.method in ("lstm", "through_time"):
        lstm = nn.LSTM(1, HIDDEN, BLOCKS, batch_first=True)
        rnn = lstm if case.method == "lstm" else ThroughTime(lstm)
        return lambda x: rnn(x)[0][:, -1], list(lstm.parameters())
    memory = "recompute" if case.method == "torch_checkpoint" else case.method
    stack = make_stack(memory, case.memories)
    parameters = list(stack.parameters())
    if case.method == "torch_checkpoint":
        return lambda x: _in_chunks(stack, x, case.chunk), parameters
    if case.chunk:  # in place of what the strategy would choose
        number = -(-case.steps // case.chunk)
        kept = fewest_checkpoints(number, case.rounds) if case.rounds > 1 else 0
        plan = Plan(memory, case.chunk, kept)
        stack._choose = lambda *_: plan  # type: ignore[method-assign]
    return lambda x: stack(x, return_sequence=False)[0], parameters


def make_stack(memory: str, memories: str) -> IRevStack:
    """Build the gated blocks that are measured, after a linear embedding."""
    options = MEMORIES[memories]
    blocks = [
        IRevBlock(WIDTH, HIDDEN, norm="layer" if index else None, **options)
        for index in range(BLOCKS)
    ]
    return IRevStack([nn.Linear(1, WIDTH), *blocks], memory)


def _in_chunks(stack: IRevStack, x: Tensor, chunk: int) -> Tensor:
    """Run a stack by ``torch.utils.checkpoint``, chunk by chunk.

    The reentrant kind: the peak of the other grows with T here, though it saves no more.
    """

    def run(part: Tensor, *state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        output, (h, c) = stack(part, state or None, return_sequence=False)
        return output, h, c

    output, *state = run(x[:, :1].detach())  # states that require a gradient, as those that follow
    for part in x[:, 1:].split(chunk, 1):
        output, *state = torch_checkpoint(run, part, *state, use_reentrant=True)
    return output


def measure_lengths(longest: Mapping[str, int]) -> list[dict[str, Any]]:
    """Measure lines of :data:`LINES` at T = 100, 1,000, ..., each up to its power of ten.

    Returns the rows, each with its ``line``.
    """
    rows = []
    for line, end in longest.items():
        method, memories = LINES[line]
        for power in range(2, end + 1):
            case = Case(method, 10**power, 1, memories=memories)
            row = {"line": line, **in_fresh_process(measure, case, caching_allocator=True)}
            rows.append(row)
    return rows


def rows_of(
    steps: int,
    batch: int,
    chunks: tuple[int, ...],
    processes: int = 1,
    folder: Path | None = None,
) -> list[dict[str, Any]]:
    """Measure all cases at a size, those of :data:`RIVALS` in several processes, one after another.

    Prints a line for each case.

    Args:
        steps, batch, chunks: the size.
        processes: how many measure each of the rivals.
        folder: where rows are kept, in a file for each size: a case that is there is not measured
            again, unless it was by fewer processes.

    Returns:
        A row for each case, with the medians over ``processes``, the ``git_commit`` and, in
        ``runs``, the ``peak_bytes`` and ``seconds`` of each of them.
    """
    file = folder and folder / f"{steps}-{batch}.json"
    rows = {} if file is None else _kept(file)
    every = list(cases(steps, batch, chunks))
    wanted = {case: processes if _is_rival(case) else 1 for case in every}
    missing = [case for case in every if case not in rows or len(rows[case]["runs"]) < wanted[case]]
    print(f"T = {steps:,}, B = {batch}: {len(every) - len(missing)} cases were measured before")
    runs: dict[Case, list[dict[str, Any]]] = {case: [] for case in missing}
    for turn in range(processes):  # in turn: what slows one process slows all
        for case in missing:
            if turn < wanted[case]:
                runs[case].append(in_fresh_process(measure, case, caching_allocator=True))
    commit = {"git_commit": provenance()["git_commit"]}
    rows |= {case: _summary(case, of_case) | commit for case, of_case in runs.items()}
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(list(rows.values())))
    return [rows[case] for case in every]


def _kept(file: Path) -> dict[Case, dict[str, Any]]:
    """Return the rows in a file, none if there is no such file."""
    rows = json.loads(file.read_text()) if file.is_file() else []
    return {Case(*(row[field] for field in Case._fields)): row for row in rows}


def _summary(case: Case, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the row of a case, from its runs in one process or several, and print a line."""
    measured = ("peak_bytes", "seconds")
    row = runs[0] | {name: median(run[name] for run in runs) for name in measured}
    chunk = f", chunks of {case.chunk}" if case.chunk else ""
    rounds = f", {case.rounds} rounds" if case.rounds else ""
    memories = f", memories: {case.memories}" if case.method == "reversible" else ""
    print(
        f"T = {case.steps:,}, B = {case.batch}, {case.method}{chunk}{rounds}{memories}: "
        f"{row['peak_bytes'] / 1e6:.1f} MB, {1e6 * row['seconds'] / case.steps:.1f} us a step"
    )
    return row | {"runs": [{name: run[name] for name in measured} for run in runs]}
