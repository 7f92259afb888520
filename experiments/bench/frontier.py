"""Measure a training step of four gated blocks and of their rivals: its time and its memory.

Notebook 06 measures them against the length, and at several sizes of the state. Every measurement
has a process of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from experiments.bench.measure import growth_of_peak, in_fresh_process, saved_bytes, wall_clock
from experiments.files import write_text
from experiments.peers.rev_gru import RevGRU
from experiments.provenance import provenance
from irevrnn import IRevBlock, IRevStack, ThroughTime
from irevrnn.strategies.revolve import fewest_checkpoints
from irevrnn.strategies.strategy import Plan, chunk_length

WIDTH, HIDDEN, BLOCKS = 64, 64, 4
#: What units remember: options of the blocks.
MEMORIES: dict[str, dict[str, Any]] = {
    "u = 1": {"forgets": False, "longest_memory": 200.0},
    "selective": {
        "forgets": False, "longest_memory": 200.0, "turns": "input", "input_gate": True,
    },
    "up to 1,000 steps": {"longest_memory": 1000.0},
    "up to 10 steps": {"longest_memory": 10.0, "longest_period": 20.0},
}  # fmt: skip


class Method(NamedTuple):
    """A strategy of gated blocks, or a rival of theirs.

    Attributes:
        strategy: one of the library, ``lstm``, ``through_time`` around it, or a reversible GRU
            that is run back in integers, ``rev_gru``, or in floats, ``rev_gru_floats``.
        memories: a key of :data:`MEMORIES`.
        rounds: how often ``checkpoint`` runs a chunk forward, at most, before it runs with its
            graph. Chunks are as long as those of ``reversible``, and the fewest states are kept.
            0 leaves both to the strategy.
    """

    strategy: str
    memories: str = "up to 1,000 steps"
    rounds: int = 0


#: The methods, by the lines of the figures.
LINES = {
    "recompute": Method("recompute"),
    "checkpoint": Method("checkpoint"),
    "checkpoint, 2 rounds": Method("checkpoint", rounds=2),
    "checkpoint, 3 rounds": Method("checkpoint", rounds=3),
    "reversible": Method("reversible"),
    "reversible, u = 1": Method("reversible", "u = 1"),
    "reversible, selective": Method("reversible", "selective"),
    "store": Method("store"),
    "nn.LSTM": Method("lstm"),
    "ThroughTime(nn.LSTM)": Method("through_time"),
    "RevGRU": Method("rev_gru"),
    "RevGRU, floats": Method("rev_gru_floats"),
}
#: Those that are compared at several sizes of the state.
RIVALS = (
    "recompute", "checkpoint", "checkpoint, 2 rounds", "checkpoint, 3 rounds", "reversible",
    "reversible, u = 1",
)  # fmt: skip
#: Steps are repeated until they have taken this time, and the fastest counts. Page faults slow the
#: first one down: it counts alone if it is so long, for the bytes it adds, that they do not matter.
SECONDS, LONG, FEW_BYTES_PER_SECOND = 0.5, 3.0, 5e7
#: ``recompute`` is left out where it would add more than this to the process.
MOST_BYTES = 4e9
#: Bytes that it adds for each step, sequence, and number of a block's width and state.
BYTES_PER_NUMBER = 30
#: Of longer sequences, a step of which takes minutes, only some are measured.
MANY_STEPS = 1_000_000
#: Steps that load all code before the first that counts.
_FIRST = 2048


class Case(NamedTuple):
    """One measurement: a key of :data:`LINES`, T, B, and the units of a block."""

    line: str
    steps: int
    batch: int = 1
    hidden: int = HIDDEN


def measure(case: Case, saved: bool = False) -> dict[str, Any]:
    """Measure a training step in this process, a new one.

    Returns the case, ``peak_bytes`` that a step adds to the resident memory, ``seconds`` of the
    fastest repetition, ``kept_bytes`` that a formula expects between the passes, and if asked to,
    ``saved_bytes``, as counted.
    """
    torch.manual_seed(0)
    run, module = _build(case)
    parameters = list(module.parameters())
    x = torch.randn(case.batch, case.steps, 1, generator=torch.Generator().manual_seed(0))

    def step(x: Tensor = x) -> None:
        run(x).square().sum().backward()
        for parameter in parameters:
            parameter.grad = None

    # Also what only runs when large values make the scale of fixed point coarser.
    step(100 * x[:, :_FIRST])
    times: list[float] = []

    def timed() -> None:
        times.append(wall_clock(step))

    peak = growth_of_peak(lambda: timed)
    if times[0] < LONG or peak > FEW_BYTES_PER_SECOND * times[0]:
        timed()
    while sum(times) < SECONDS:
        timed()
    row = case._asdict() | {"peak_bytes": peak, "seconds": min(times)}
    row["kept_bytes"] = _kept_bytes(case, module)
    if saved:
        row["saved_bytes"] = saved_bytes(
            lambda: run(x), exclude=[x, *parameters], exclude_output=True
        )
    return row


def _build(case: Case) -> tuple[Callable[[Tensor], Tensor], nn.Module]:
    """Return a function of (B, T, 1) to the last output (B, width), and what it runs."""
    method = LINES[case.line]
    if method.strategy in ("lstm", "through_time"):
        lstm = nn.LSTM(1, case.hidden, BLOCKS, batch_first=True)
        rnn = lstm if method.strategy == "lstm" else ThroughTime(lstm)
        return lambda x: rnn(x)[0][:, -1], rnn
    if method.strategy.startswith("rev_gru"):
        gru = RevGRU(1, case.hidden, BLOCKS, exact=method.strategy == "rev_gru")
        return gru, gru
    stack = make_stack(method.strategy, method.memories, case.hidden)
    if method.rounds:  # in place of what the strategy would choose
        plan = Plan(method.strategy, *_chunks(case))
        stack._choose = lambda *_: plan  # type: ignore[method-assign]
    return lambda x: stack(x, return_sequence=False)[0], stack


def make_stack(memory: str, memories: str, hidden: int = HIDDEN) -> IRevStack:
    """Build the gated blocks that are measured, after a linear embedding."""
    options = MEMORIES[memories]
    blocks = [
        IRevBlock(WIDTH, hidden, norm="layer" if index else None, **options)
        for index in range(BLOCKS)
    ]
    return IRevStack([nn.Linear(1, WIDTH), *blocks], memory)


def _chunks(case: Case) -> tuple[int, int]:
    """Return the steps of a chunk, and how many checkpoints are kept."""
    method = LINES[case.line]
    strategy = "reversible" if method.rounds else method.strategy
    length = chunk_length(strategy, case.steps, case.batch, max(WIDTH, case.hidden), True)
    number = -(-case.steps // length)
    return length, fewest_checkpoints(number, method.rounds) if method.rounds else number


def _kept_bytes(case: Case, module: nn.Module) -> int | None:
    """Return the bytes of ``eq:checkpoint`` or ``eq:stored``; None for other methods."""
    if LINES[case.line].strategy == "checkpoint":
        return _chunks(case)[1] * 2 * BLOCKS * case.batch * case.hidden * 4
    if LINES[case.line].strategy == "reversible":
        assert isinstance(module, IRevStack)
        recurrences: Any = module._stack().recurrences
        bits = sum(recurrence.expected_bits() for recurrence in recurrences)
        return round(case.steps * case.batch * bits / 8)
    return None


def measure_lengths(longest: Mapping[str, int], repetitions: int) -> list[dict[str, Any]]:
    """Measure lines at T = 100, 1,000, ..., one sequence, each up to its power of ten.

    Rows are as for :func:`measure_size`, with ``saved_bytes``.
    """
    cases = [Case(line, 10**power) for line, end in longest.items() for power in range(2, end + 1)]
    return _in_turn(cases, repetitions, saved=True)


def measure_size(
    steps: int, batch: int, hidden: int, repetitions: int, folder: Path | None = None
) -> list[dict[str, Any]]:
    """Measure all of :data:`RIVALS` at a size, in several processes one after another.

    Prints a line for each.

    Args:
        steps, batch, hidden: the size.
        repetitions: how many processes measure each of them, in turn: what slows one slows all.
        folder: where rows are kept, in a file for each size: it is not measured again.

    Returns:
        A row for each, with the medians of ``peak_bytes`` and ``seconds``, the ``git_commit`` and,
        in ``runs``, both of each process.
    """
    file = folder and folder / f"{steps}-{batch}-{hidden}.json"
    if file and file.is_file():
        return list(json.loads(file.read_text()))
    cases = [Case(line, steps, batch, hidden) for line in _fitting(steps, batch, hidden)]
    rows = _in_turn(cases, repetitions)
    for row in rows:
        print(
            f"T = {steps:,}, B = {batch}, H = {hidden}, {row['line']}: "
            f"{row['peak_bytes'] / 1e6:.1f} MB, {1e6 * row['seconds'] / steps:.1f} us a step"
        )
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(rows))
    return rows


def _fitting(steps: int, batch: int, hidden: int) -> Iterator[str]:
    for line in RIVALS:
        fits = BYTES_PER_NUMBER * (WIDTH + hidden) * steps * batch <= MOST_BYTES
        short = steps <= MANY_STEPS or line not in ("checkpoint, 3 rounds", "reversible")
        if short and (fits or line != "recompute"):
            yield line


def _in_turn(cases: Sequence[Case], repetitions: int, saved: bool = False) -> list[dict[str, Any]]:
    """Measure all cases, again and again: return a row for each, of medians."""
    turns = [
        [in_fresh_process(measure, case, saved, caching_allocator=True) for case in cases]
        for _ in range(repetitions)
    ]
    return [_summary(runs) for runs in zip(*turns, strict=True)]


def _summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    measured = ("peak_bytes", "seconds")
    row = runs[0] | {name: median(run[name] for run in runs) for name in measured}
    every = [{name: run[name] for name in measured} for run in runs]
    return row | {"git_commit": provenance()["git_commit"], "runs": every}
