"""The one protocol by which a strategy knows recurrences: :class:`Recurrence`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from torch import Tensor

from irevrnn.recurrences.fixed_scan import Buffer, Pass, States
from irevrnn.recurrences.packing import Steps

#: The state of a recurrence between two steps: any number of tensors.
State: TypeAlias = tuple[Tensor, ...]
#: What drives a recurrence, step by step: one or more tensors, (T, B, ...) or (N, ...) packed.
Drive: TypeAlias = tuple[Tensor, ...]
#: h of every step, and the state after the last.
Result: TypeAlias = tuple[Tensor, State]


class Recurrence(Protocol):
    """A recurrence and what stands around it: enough for every strategy but ``reversible``.

    Attributes:
        name: what an error calls it.
        width: units, from which the length of chunks follows.
        full_precision: whether states are at least float32, whatever the dtype of the drive.
    """

    name: str
    width: int
    full_precision: bool

    def initial_state(self, batch: int) -> State | None:
        """Return the state before the first step; None if the recurrence makes it itself."""
        return None

    def drive(self, x: Tensor) -> Drive:
        """Return what drives the recurrence, a function of each step of the input by itself."""
        return (x,)

    def chosen_bits(self, drive: Drive) -> Tensor | None:
        """Return the bits that the drive chooses to forget, of all steps and sequences, a scalar.

        None where the input chooses nothing.
        """
        return None

    def scan(self, drive: Drive, state: State | None, steps: Steps, memory: str) -> Result:
        """Run over some steps."""
        raise NotImplementedError

    def last(self, h: Tensor, state: State) -> Tensor:
        """Return (B, ...), h after the last step, where all sequences have one length."""
        return h[-1]

    def output(self, x: Tensor, h: Tensor) -> Tensor:
        """Return the output of each step, from its input and h."""
        return h

    def inexact_reason(self, memory: str) -> str | None:
        """Return why steps have no exact inverse, as ``memory`` needs; None if they have one."""
        return f"memory={memory!r} inverts steps, which {self.name} cannot; use memory='checkpoint'"


class ExactRecurrence(Recurrence, Protocol):
    """A recurrence whose steps have exact inverses in integers: for ``reversible``."""

    def expected_bits(self) -> float:
        """Return the bits that a sequence forgets in a step, on average or at most."""

    def exact_state(self, state: Any) -> States:
        """Round a state to integers; raise an error if a step from it has no inverse."""

    def forward_exact(
        self, drive: Drive, states: States, steps: Steps, *, record: bool = False,
        save: bool = False,
    ) -> tuple[Pass, Tensor, Tensor]:  # fmt: skip
        """Run over some steps; return the pass, and the words of bits that it forgot."""

    def inverse_exact(
        self, drive: Drive, states: States, buffer: Buffer, steps: Steps
    ) -> tuple[Pass, Buffer]:
        """Run backwards from the states after the last step, and take the bits from a buffer."""

    def with_gradient(self, result: Pass, drive: Drive, state: State, steps: Steps) -> Result:
        """Return h and the last state of a pass as functions of the drive and the first state."""


def check_result(name: str, method: str, y: Any, shape: Sequence[int]) -> None:
    """Raise an error unless ``y`` has ``shape``, or (*shape, features) as an output."""
    if not isinstance(y, Tensor):
        raise TypeError(f"{name}: {method} must return a torch.Tensor; got {type(y).__name__}")
    wanted = len(shape) + (method == "output")
    if y.dim() != wanted or y.shape[: len(shape)] != tuple(shape):
        features = ", features" if method == "output" else ""
        raise ValueError(
            f"{name}: {method} must treat each step by itself and return shape "
            f"({', '.join(map(str, shape))}{features}); got {tuple(y.shape)}"
        )
