"""Gated blocks on top of each other in one operator for each chunk of steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from irevrnn.recurrences import fixed_scan
from irevrnn.recurrences.block import BlockRecurrence, overflow
from irevrnn.recurrences.fixed_point import Numbers
from irevrnn.recurrences.fixed_scan import Buffer, Pass, States
from irevrnn.recurrences.packing import Steps
from irevrnn.recurrences.protocol import Drive, Recurrence, Result, State


class Parameters:
    """Gated blocks made ready for operators, and the sums of their parameters' gradients.

    Args:
        blocks: of one form, from the bottom up.
        needed: the parameters whose gradients are to be summed; None in a forward pass.
        last: whether the highest block returns its output of the last step alone.

    Attributes:
        ready: the blocks, for the operators (``csrc/gated_blocks.h``).
        sums: of gradients, over all chunks of a backward pass; without elements where none is
            wanted.
    """

    def __init__(self, blocks: Sequence[Any], needed: Sequence[Tensor] | None, last: bool) -> None:
        self._blocks, self.sums = blocks, list[Tensor]()
        self._needed = {id(parameter) for parameter in needed or ()}
        parameters: list[Tensor | None] = []
        for block in blocks:
            values = [None if p is None else p.detach() for p in parameters_of(block)]
            *first, bias = values[:4]
            scale = block.scale.detach()
            shift = None if bias is None else bias * scale
            parameters += [*first, shift, scale, *values[4:]]
            if needed is not None:
                wanted = [id(p) in self._needed for p in parameters_of(block)]
                if id(block.scale) in self._needed:
                    wanted[2], wanted[3] = True, bias is not None
                self.sums += [
                    torch.zeros_like(x) if want and x is not None else scale.new_empty(0)
                    for x, want in zip(values, wanted, strict=True)
                ]
        self.ready = prepared(blocks, parameters, last, self.sums)

    def gradients(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Return each parameter that needs a gradient, with the sum of its gradients."""
        sums = iter(self.sums)
        for block in self._blocks:
            parameters = parameters_of(block)
            own = [next(sums) for _ in parameters]
            scale, weight, bias = block.scale, *parameters[2:4]
            if id(scale) in self._needed:
                of_scale = (own[2] * weight).sum(1)
                yield scale, of_scale if bias is None else of_scale + own[3] * bias
            for place, parameter in enumerate(parameters):
                if id(parameter) not in self._needed:
                    continue
                if place in (2, 3):
                    own[place].mul_(scale.detach().unsqueeze(1) if place == 2 else scale.detach())
                yield parameter, own[place]


def parameters_of(block: Any) -> list[Any]:
    """Return the parameters of a gated block but for gamma; None where it has none."""
    norm, inner, outer = block.norm, block.input_projection, block.output_projection
    recurrence = [block.recurrent_weight, block.coupling_a, block.coupling_b]
    if block.selective:
        recurrence = [recurrence[0] if block.forgets is True else None, None, None]
    gates = block.read_gate, block.angle_gate, block.decay_gate
    return [
        getattr(norm, "weight", None), getattr(norm, "bias", None), inner.weight, inner.bias,
        *recurrence, outer.weight, outer.bias, block.angle if block.selective else None,
        *(getattr(gate, name, None) for gate in gates for name in ("weight", "bias")),
    ]  # fmt: skip


def prepared(
    blocks: Sequence[Any], parameters: list[Tensor | None], last: bool, sums: list[Tensor]
) -> Any:
    """Return blocks of one form for operators; ``csrc/gated_blocks.h`` says what these take."""
    first, eps = blocks[0], [getattr(block.norm, "eps", -1.0) for block in blocks]
    return torch.classes.irevrnn.GatedBlocks(
        parameters, eps, first.residual, last, first.activation, first.coupling_activation, sums
    )


class CompiledBlocks(Recurrence):
    """The recurrences of gated blocks, together with what stands around them.

    What drives it is the input of the lowest block, and h is the output of the highest. A state has
    those of all blocks: h and c are (L, B, H) each.

    Args:
        members: the recurrences of the blocks, from the bottom up.
        last: whether the output of the last step alone is wanted.

    Attributes:
        parameters: for the pass that is running.
    """

    full_precision = True
    parameters: Parameters
    _chosen_bits: Tensor

    def __init__(self, members: Sequence[BlockRecurrence], last: bool) -> None:
        self.members, self.last_alone = members, last
        names = [member.name for member in members]
        self.name = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
        self.width = members[0].width

    def begin(self, needed: Sequence[Tensor] | None) -> None:
        """Read the parameters for a pass over all chunks; ``needed`` are to have gradients."""
        blocks = [member.block for member in self.members]
        self.parameters = Parameters(blocks, needed, self.last_alone)

    def end(self) -> None:
        """Release what was made for the pass."""
        vars(self).pop("parameters", None)

    def pack(self, states: Sequence[State]) -> State:
        """Return the states of the members as one."""
        h = torch.stack([state[0] for state in states])
        if all(state[0] is state[1] for state in states):  # zeros
            return h, h
        return h, torch.stack([state[1] for state in states])

    def unpack(self, state: State) -> list[State]:
        """Return the state of each member."""
        return [*zip(*(x.unbind() for x in state), strict=True)]

    def chosen_bits(self, drive: Drive) -> Tensor | None:
        """Return those of the pass that has just run, once: they hold its graph."""
        bits: Tensor = vars(self).pop("_chosen_bits")
        return bits if self.members[0].block.forgets == "input" else None

    def scan(self, drive: Drive, state: State | None, steps: Steps, memory: str) -> Result:
        assert state is not None
        y, *final, self._chosen_bits = self.parameters.ready.scan(
            *drive, *state, steps.resets, steps.batch_sizes
        )
        return y, tuple(final)

    def exact_state(self, state: State) -> States:
        pairs = zip(self.members, self.unpack(state), strict=True)
        exact = [member.exact_state(each) for member, each in pairs]
        h, c, scales = (torch.stack(each) for each in zip(*(s[:3] for s in exact), strict=True))
        return _BlockStates(h, c, scales, *exact[0][3:])

    def forward_exact(
        self, drive: Drive, states: States, steps: Steps, *, record: bool = False,
        save: bool = False,
    ) -> tuple[Pass, Tensor, Tensor]:  # fmt: skip
        y, tensors, words, counts, saved, block, step = self.parameters.ready.scan_fixed(
            *drive, states.tensors, states.steps, record, save, steps.resets, steps.batch_sizes
        )
        self._chosen_bits = saved[-1]
        if step >= 0:
            raise overflow(f"{self.members[block].name}, step {steps.begin + step}")
        after = _BlockStates.from_tensors(tensors, states.steps + steps.end - steps.begin)
        return Pass(y, saved, states, after), words, counts

    def inverse_exact(
        self, drive: Drive, states: States, buffer: Buffer, steps: Steps
    ) -> tuple[Pass, Buffer]:
        y, tensors, counts, saved = self.parameters.ready.unscan_fixed(
            *drive, states.tensors, states.steps, *buffer, steps.resets, steps.batch_sizes
        )
        before = _BlockStates.from_tensors(tensors, states.steps + steps.begin - steps.end)
        return Pass(y, saved, before, states), buffer._replace(counts=counts)

    def with_gradient(self, result: Pass, drive: Drive, state: State, steps: Steps) -> Result:
        y, *final, self._chosen_bits = self.parameters.ready.with_gradient(
            *drive, *state, result.out, result.saved, steps.resets, steps.batch_sizes
        )
        return y, tuple(final)


class _BlockStates(fixed_scan.States):
    """Fixed-point states of several blocks: h and c are (L, B, H), the scales (L, 2, B, H)."""

    @property
    def numbers(self) -> Numbers:
        return Numbers(self.h, self.c, self.scales.transpose(0, 1))


def form_of(recurrence: Any) -> tuple[Any, ...] | None:
    """Return what blocks that run together have in common; None for what no operator computes."""
    block = getattr(recurrence, "block", None)
    can_compile = getattr(block, "can_compile", None)
    if block is None or can_compile is None or not can_compile():
        return None
    activations = block.activation, block.coupling_activation
    chosen = block.input_gate, block.turns, block.forgets if block.selective else None
    return block.width, block.hidden_size, block.residual, *activations, *chosen
