"""What each strategy holds and needs, computed from sizes and weights, and the choice of ``auto``.

``saved`` counts as :func:`experiments.bench.measure.saved_bytes` does: what the graph keeps between forward and
backward beyond the input, the parameters and what is returned. It is exact in full precision, but
for ``reversible``, whose bits depend on the weights, which are looked at, and on where g forgets,
which is taken as everywhere: that figure is an upper bound. ``peak`` adds what the
largest moment of the backward pass needs; it is an estimate, without the gradients of input, output
and parameters, which any strategy has, and the few MB that oneDNN takes for itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from torch import nn

from irevrnn.backend import choose_backend
from irevrnn.strategies.chunkwise import chunk_length
from irevrnn.strategies.fixed_point import INVERTIBLE, round_weight
from irevrnn.strategies.rules import IN_FIXED_POINT, OF_A_LAYER, OF_THE_STACK, SEGMENT

if TYPE_CHECKING:
    from irevrnn.rnn import IRevRNN

#: What ``auto`` picks from, fastest first.
CANDIDATES = ("recompute", "checkpoint", "reversible")
#: Shorter chunks spend their time on the calls of operators.
SHORTEST_CHUNK = SEGMENT
#: Bits that g forgets in a step where y is negative (:mod:`irevrnn.strategies.fixed_point`).
BITS_OF_A_NEGATIVE = {"identity": 0.0, "leaky_relu": 2.0, "relu": 48.0}
#: Lanes of a layer share this many bit stacks at most, in the vectorised kernel.
STACKS = 16
#: Sequences of a layer's size that the backward pass has at once: gradients of output, z and input.
GRADIENTS = 3

_UNITS = {"B": 1} | {
    f"{prefix}{infix}B": base**power
    for infix, base in (("", 1000), ("i", 1024))
    for power, prefix in enumerate("KMGT", start=1)
}


@dataclass(frozen=True)
class Task:
    """A forward and backward pass whose memory is asked for.

    Attributes:
        steps, batch: T and B.
        copied: whether the first layer works on a copy of the input (another order of dimensions).
        return_sequence: whether the output of all steps is returned.
        own_states: whether the initial states are zeros that the layer makes.
        packed: whether sequences have lengths of their own, of at most ``steps``.
    """

    steps: int
    batch: int
    copied: bool = False
    return_sequence: bool = True
    own_states: bool = True
    packed: bool = False


class Plan(NamedTuple):
    """A strategy for a task and what it costs.

    Attributes:
        strategy: value of ``memory``.
        chunk: steps in a chunk, or 0 if the strategy has none.
        saved: bytes between forward and backward.
        peak: bytes at the largest moment of the two.
    """

    strategy: str
    chunk: int
    saved: int
    peak: int


def bytes_of(text: str | int) -> int:
    """Turn ``"256MB"``, ``"1.5 GiB"`` or a number of bytes into bytes.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(text, int) and not isinstance(text, bool) and text > 0:
        return text
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]+)\s*", str(text))
    if not isinstance(text, str) or match is None or match[2] not in _UNITS or not float(match[1]):
        raise ValueError(
            "memory_budget must be a number of bytes, or text such as '256MB' or '1.5GiB' (units: "
            f"{', '.join(_UNITS)}); got {text!r}"
        )
    return int(float(match[1]) * _UNITS[match[2]])


def text_of(size: int) -> str:
    """Write a number of bytes for people, in decimal units."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} B"


def describe(plan: Plan, task: Task) -> str:
    """Say in one line what a plan is and costs."""
    chunks = f", chunks of {plan.chunk} steps" if plan.chunk else ""
    return (
        f"{plan.strategy!r}{chunks}, for {task.steps} steps and batch {task.batch}: holds about "
        f"{text_of(plan.saved)}, at its peak about {text_of(plan.peak)}"
    )


def one_way(strategy: str, packed: bool, bidirectional: bool) -> str | None:
    """Say why ``strategy`` cannot serve these sequences, and what can; None if it can."""
    if bidirectional and strategy in OF_THE_STACK:
        return (
            f"bidirectional=True does not go with memory={strategy!r}, which takes all layers "
            "through a chunk of steps at once; use memory='recompute' or 'store'"
        )
    if packed and strategy in IN_FIXED_POINT:
        return (
            f"packed input and lengths do not go with memory={strategy!r}; use memory='recompute', "
            "'store' or 'checkpoint', or sequences of one length"
        )
    return None


def obstacle(model: IRevRNN, strategy: str, packed: bool = False) -> str | None:
    """Say why ``strategy`` cannot train ``model``; None if it can."""
    if strategy in OF_A_LAYER:
        return None
    if reason := one_way(strategy, packed, model.bidirectional):
        return reason
    if model.training and model.norm == "batch":
        return "norm='batch' has statistics over all steps"
    if strategy == "checkpoint":
        return None
    if model.activation not in INVERTIBLE:
        return f"activation={model.activation!r} cannot be undone"
    if any(not layer.recurrent_weight.abs().max() <= 1 for layer in model._stack()):
        return "a recurrent weight lies outside [-1, 1]"
    return None


def plan(model: IRevRNN, task: Task, strategy: str, chunk: int | None = None) -> Plan:
    """What ``strategy`` costs.

    Args:
        model: whose layers run.
        task: the sizes.
        strategy: a strategy without :func:`obstacle`.
        chunk: steps in a chunk; the default of the strategy if not given.
    """
    if strategy in OF_A_LAYER:
        saved = _graph(model, task, task.steps, strategy)
        return Plan(strategy, 0, saved, saved + GRADIENTS * _row(model, task) * task.steps)
    chunk = chunk or chunk_length(strategy, task.steps, task.batch, model.hidden_size)
    chunk = min(chunk, task.steps)
    saved = _HELD[strategy](model, task, math.ceil(task.steps / chunk)) + _masks(model, task)
    return Plan(strategy, chunk, saved, saved + _rebuilt_chunk(model, task, strategy, chunk))


def choose(model: IRevRNN, task: Task, budget: int) -> Plan:
    """Pick the first of :data:`CANDIDATES` whose peak keeps within ``budget`` bytes.

    Raises:
        ValueError: none does.
    """
    least: Plan | None = None
    for option in _options(model, task):
        if option.peak <= budget:
            return option
        if least is None or option.peak < least.peak:
            least = option
    assert least is not None  # recompute is always possible
    raise ValueError(
        f"memory_budget is {text_of(budget)}, but an input of {task.steps} steps and batch "
        f"{task.batch} needs at least {text_of(least.peak)} (memory={least.strategy!r}"
        + "".join(
            f"; {name!r} is impossible: {reason}"
            for name in CANDIDATES
            if (reason := obstacle(model, name, task.packed))
        )
        + "); raise the budget, shorten the input or split the batch"
    )


def _options(model: IRevRNN, task: Task) -> Iterator[Plan]:
    """All that ``auto`` may pick, in the order it prefers: chunks halve while they are long."""
    for strategy in CANDIDATES:
        if obstacle(model, strategy, task.packed):
            continue
        option = plan(model, task, strategy)
        yield option
        while option.chunk > SHORTEST_CHUNK:
            chunk = option.chunk // 2 // SEGMENT * SEGMENT
            option = plan(model, task, strategy, max(SHORTEST_CHUNK, chunk))
            yield option


def table(model: IRevRNN, task: Task) -> str:
    """A table of all strategies for people to read."""
    numbers = task.steps * task.batch * model.hidden_size * model.num_layers
    rows = [("memory", "holds", "bits per unit and step", "peak of a step", "chunk")]
    notes = []
    for strategy in ("store", *CANDIDATES):
        if reason := obstacle(model, strategy, task.packed):
            notes.append(f"{strategy}: cannot be used, {reason}")
            continue
        option = plan(model, task, strategy)
        rows.append(
            (
                strategy,
                text_of(option.saved),
                f"{8 * option.saved / numbers:.3g}",
                text_of(option.peak),
                f"{option.chunk} steps" if option.chunk else "",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{x:<{w}}" for x, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in (*lines, *notes))


# --- the formulas -------------------------------------------------------------------------------


def _size(model: IRevRNN) -> int:
    return model._stack()[0].recurrent_weight.element_size()


def _row(model: IRevRNN, task: Task) -> int:
    """Bytes of one step of a layer's output."""
    return task.batch * model.hidden_size * _size(model)


def _graph(model: IRevRNN, task: Task, steps: int, strategy: str) -> int:
    """Bytes that the graph of some steps of the whole stack holds."""
    row, size, directions = _row(model, task), _size(model), model._directions()
    total = 0
    if task.copied:
        total += steps * task.batch * model.input_size * size
    if task.own_states:
        total += model.num_layers * directions * row
    for layer in model._all_layers():
        total += steps * row  # the output
        if strategy == "store":
            total += 2 * model.num_couplings * steps * row
        else:
            total += (math.ceil(steps / SEGMENT) - 1) * row
        total += _norm(layer.norm, task, steps, row, size)
    # What the projections read, where it is not the output that the recurrence below holds.
    made = sum(
        1
        for index in range(1, model.num_layers)
        if _drops(model) or _adds(model, index - 1) or directions == 2
    )
    total += made * directions * steps * row
    top_is_returned = not _adds(model, model.num_layers - 1) and directions == 1
    if task.return_sequence and top_is_returned:
        total -= steps * row  # the last layer's output is the caller's
    return total + _masks(model, task)


def _norm(norm: nn.Module, task: Task, steps: int, row: int, size: int) -> int:
    """Bytes that a normalisation holds: its input, and what it divides by."""
    if isinstance(norm, nn.LayerNorm):
        return steps * row + 2 * steps * task.batch * size
    if isinstance(norm, nn.BatchNorm1d):
        return steps * row + (2 * norm.num_features * size if norm.training else 0)
    return 0


def _drops(model: IRevRNN) -> bool:
    return model.training and model.dropout > 0 and model.num_layers > 1


def _adds(model: IRevRNN, index: int) -> bool:
    inner = model._directions() * model.hidden_size
    return model.residual and (index > 0 or model.input_size == inner)


def _masks(model: IRevRNN, task: Task) -> int:
    return (model.num_layers - 1) * model._directions() * _row(model, task) if _drops(model) else 0


def _checkpoint(model: IRevRNN, task: Task, chunks: int) -> int:
    """Equation ``eq:checkpoint``: h and c of every layer where chunks begin."""
    return chunks * 2 * model.num_layers * _row(model, task)


def _reversible(model: IRevRNN, task: Task, chunks: int) -> int:
    """Final states, hashes, and the forgotten bits (equation ``eq:decay``)."""
    layers, units = model._stack(), task.batch * model.hidden_size
    negative = BITS_OF_A_NEGATIVE[model.activation]
    bits = 0.0
    for layer in layers:
        forgotten = -round_weight(layer.recurrent_weight.detach()).abs().double().log2()
        bits += task.steps * task.batch * (forgotten + negative).sum().item()
    states = len(layers) * (3 * 8 * units + 8 * _stacks(model, units) + 8 * chunks)
    return math.ceil(bits / 8) + states


def _stacks(model: IRevRNN, units: int) -> int:
    """How many bit stacks a layer has, each with a 64-bit count (:mod:`irevrnn.strategies.fixed_scan`)."""
    weight = model._stack()[0].recurrent_weight
    return STACKS if choose_backend(weight.device.type, weight.dtype) == "vector" else units


def _store_fixed(model: IRevRNN, task: Task, chunks: int) -> int:
    """Outputs, values of f and states of every pass (:class:`irevrnn.strategies.traces.StoreFixed`)."""
    row, units = _row(model, task), task.batch * model.hidden_size
    rows = task.steps * (1 + 2 * model.num_couplings)
    return model.num_layers * (rows * row + 3 * (chunks + 1) * 8 * units)


_HELD: dict[str, Callable[[IRevRNN, Task, int], int]] = {
    "checkpoint": _checkpoint,
    "reversible": _reversible,
    "store_fixed": _store_fixed,
}


def _rebuilt_chunk(model: IRevRNN, task: Task, strategy: str, chunk: int) -> int:
    """A chunk with its graph, and gradients that pass through it."""
    inner = Task(chunk, task.batch, copied=True, return_sequence=False)
    row = _row(model, task)
    total = _graph(model, inner, chunk, "recompute") + GRADIENTS * chunk * row
    if strategy != "checkpoint":  # f(p) and f(c) of every coupling
        total += model.num_layers * chunk * 2 * model.num_couplings * row
    return total
