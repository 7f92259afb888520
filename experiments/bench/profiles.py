"""The measurements of notebook 06, by profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from experiments.bench import suite
from experiments.bench.recurrences import METHODS, Shape
from experiments.bench.stacks import StackShape

#: What the figures of saved bytes and of peaks have room for. A layer saves what its scan saves,
#: both kinds of checkpoint save the same, and IndRNN, which is another cell, saves its output once.
SAVED = (
    "scan", "scan_store", "lstm", "gru", "autograd", "compiled_chunks", "checkpoint_reentrant",
)  # fmt: skip
PEAKS = (
    "scan", "scan_store", "lstm", "layer", "autograd", "compiled_chunks", "checkpoint_reentrant",
)  # fmt: skip
#: Those whose numbers the paper quotes.
_TOLD = ("scan", "scan_store", "lstm", "autograd", "checkpoint_reentrant")
_NO_COMPILER = tuple(name for name in METHODS if name != "compiled_chunks")


@dataclass(frozen=True)
class Memory:
    """The measurements of memory.

    Attributes:
        batch, hidden, steps, couplings: where saved tensors are counted.
        names: keys of :data:`experiments.bench.recurrences.METHODS` whose tensors are counted.
        peak: lengths at which each method gets a process of its own.
        peak_names: the methods that do.
        bit_steps: steps over which bits are counted.
        longest: the power of ten up to which each line of
            :data:`experiments.bench.frontier.LINES` is measured.
        turns: processes that measure each of them at each length, in turn.
        training, seeds: optimizer steps, and runs, that show that reversal changes nothing.
    """

    batch: int = 32
    hidden: int = 128
    steps: Sequence[int] = (32, 64, 128, 256, 512, 1024, 2048)
    couplings: Sequence[int] = (1, 2, 3, 4, 6, 8)
    names: Sequence[str] = SAVED
    peak: Sequence[int] = (256, 512, 1024, 2048, 4096)
    peak_names: Sequence[str] = PEAKS
    bit_steps: int = 200_000
    longest: dict[str, int] = field(
        default_factory=lambda: {
            "recompute": 6, "checkpoint": 6, "reversible": 6, "reversible, u = 1": 6,
            "reversible, selective": 6, "store": 5, "nn.LSTM": 5, "ThroughTime(nn.LSTM)": 6,
            "RevGRU": 4, "RevGRU, floats": 4,
        }
    )  # fmt: skip
    turns: int = 3
    training: int = 300
    seeds: int = 3


MEMORY = {
    "smoke": Memory(
        batch=8, hidden=32, steps=(32, 64, 128), couplings=(1, 2, 3),
        names=_TOLD, peak=(1024,), peak_names=("scan", "lstm"),
        bit_steps=2000, longest={"recompute": 3, "checkpoint": 3, "reversible": 3}, turns=1,
        training=5, seeds=1,
    ),
    "quick": Memory(
        steps=(32, 128, 512, 2048), couplings=(1, 3, 6),
        names=_TOLD, peak=(512, 2048),
        peak_names=("scan", "lstm", "autograd"), bit_steps=20_000,
        longest={
            "recompute": 5, "checkpoint": 6, "reversible": 6, "reversible, u = 1": 6, "nn.LSTM": 4,
            "ThroughTime(nn.LSTM)": 5,
        },
        turns=1, training=100, seeds=1,
    ),
    "paper": Memory(),
}  # fmt: skip

#: What is measured of time.
SPEED = {
    "smoke": suite.Plan(
        shapes=[Shape(64, 8, 32, 3)], repetitions=3, names=_NO_COMPILER,
        stacks=[StackShape(64, 4, 8, 16, 2)],
        floor=[Shape(64, 8, 32, 3), Shape(64, 1, 32, 3)], two_threads=[Shape(64, 8, 32, 3)],
        flat=(100, 1000), packed=[Shape(64, 8, 32, 3)], copied=1 << 20,
    ),
    "quick": suite.Plan(
        shapes=suite.SHAPES[:1], repetitions=5, names=_NO_COMPILER,
        floor=suite.SHAPES[:2], flat=(1_000, 100_000),
    ),
    "paper": suite.Plan(shapes=suite.SHAPES[:1], more=suite.SHAPES[1:]),
}  # fmt: skip

#: How many processes measure each strategy at each T, B and H.
FRONTIER: dict[str, dict[tuple[int, int, int], int]] = {
    "smoke": {(100, 1, 64): 2},
    "quick": {(1_000, 1, 64): 3, (10_000, 1, 64): 3},
    "paper": {
        (10_000, 1, 64): 10, (100_000, 1, 64): 10, (1_000_000, 1, 64): 3, (10_000_000, 1, 64): 1,
        (1_000, 64, 64): 10, (10_000, 64, 64): 3, (100_000, 64, 64): 1,
        (10_000, 1, 512): 10, (100_000, 1, 512): 3, (1_000_000, 1, 512): 1,
        (1_000, 64, 512): 5, (10_000, 64, 512): 1,
    },
}  # fmt: skip
