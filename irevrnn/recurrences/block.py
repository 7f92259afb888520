"""The oscillators of a block, as a strategy runs them: :class:`BlockRecurrence`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from irevrnn.kernels.activations import ACTIVATIONS
from irevrnn.kernels.observers import autocasts
from irevrnn.recurrences import fixed_scan
from irevrnn.recurrences.fixed_point import LARGEST_VALUE, stored_bits
from irevrnn.recurrences.fixed_scan import Buffer, Pass, States, overflow
from irevrnn.recurrences.oscillator import Weights
from irevrnn.recurrences.packing import Steps
from irevrnn.recurrences.protocol import Drive, ExactRecurrence, Result, State, check_result
from irevrnn.recurrences.selective import Turns

#: Output nonlinearities with an inverse in fixed point, and the bits that each forgets where it
#: changes something; that which forgets least first.
FORGOTTEN_BITS = {
    name: bits
    for bits, name in sorted(
        (g.forgotten_bits, name) for name, g in ACTIVATIONS.items() if g.forgotten_bits is not None
    )
}


def is_selective(block: Any) -> bool:
    """Return whether the input chooses the angles of a block's oscillators, or their decays."""
    return "input" in (getattr(block, "turns", "fixed"), getattr(block, "forgets", True))


class BlockRecurrence(ExactRecurrence):
    """The recurrence of a block, between its ``project`` and its ``output``.

    Args:
        block: an :class:`irevrnn.Block`, or a module that looks like one.
        name: what an error calls it.
    """

    full_precision = True

    def __init__(self, block: Any, name: str) -> None:
        self.block, self.name, self.width = block, name, block.hidden_size

    def weights(self, drive: Drive, batch: int) -> Weights | Turns:
        """Return the weights, which a hook may have computed in :meth:`drive`; or the turns."""
        if not is_selective(block := self.block):
            return Weights.of(block)
        chosen = iter(drive[1:])
        angle = next(chosen) if block.turns == "input" else block.angle.expand(batch, -1)
        if block.forgets == "input":
            return Turns(angle, next(chosen))
        return Turns(angle, block.recurrent_weight.expand(batch, -1) if block.forgets else None)

    def initial_state(self, batch: int) -> State:
        """Return h_0 and c_0 as they are learnt, (B, H) each; or else 0, one tensor."""
        learnt = getattr(self.block, "initial_state", None)
        if learnt is not None:
            return learnt.unsqueeze(1).expand(2, batch, -1).unbind()
        zeros = self.block.recurrent_weight.new_zeros(batch, self.block.hidden_size)
        return zeros, zeros

    def drive(self, x: Tensor) -> Drive:
        """Return the input projection, checked, and the angles and decays that the input chooses.

        Under autocast the states stay in full precision: the recurrence sums over many steps.
        """
        block = self.block
        # A block is not called, as a rule; a hook may compute its weights, as by pruning.
        if not getattr(block, "_is_called", False):
            for key, hook in [*block._forward_pre_hooks.items()]:
                if key in block._forward_pre_hooks_with_kwargs:
                    hook(block, (x,), {})
                else:
                    hook(block, (x,))
        results, u = block.project(x), block.recurrent_weight
        count = 1 + sum(getattr(block, name, None) == "input" for name in ("turns", "forgets"))
        results = (results,) if count == 1 else results
        if not isinstance(results, tuple) or len(results) != count:
            raise TypeError(
                f"{self.name}: project must return a tuple of {count} tensors, z and what the "
                f"input chooses (turns={block.turns!r}, forgets={block.forgets!r}); got "
                f"{type(results).__name__}"
            )
        for z in results:
            check_result(self.name, "project", z, (*x.shape[:-1], len(u)))
            if z.dtype != u.dtype and not autocasts(z.device.type):
                raise ValueError(
                    f"{self.name}: project must return the dtype of the recurrence, {u.dtype}; "
                    f"got {z.dtype}"
                )
        return tuple(z.to(u.dtype) for z in results)

    def chosen_bits(self, drive: Drive) -> Tensor | None:
        if getattr(self.block, "forgets", True) != "input" or torch.compiler.is_exporting():
            return None
        return 2 * stored_bits(drive[-1]).sum(dtype=torch.float64)

    def scan(self, drive: Drive, state: State | None, steps: Steps, memory: str) -> Result:
        layout = steps.batch_sizes, steps.resets
        out, *final = self.weights(drive, steps.batch).scan(drive[0], state, memory, *layout)
        return out, tuple(final)

    def last(self, h: Tensor, state: State) -> Tensor:
        """Return h_n, a tensor of its own: the gradient of a slice of h would be as large as h."""
        return state[0].clone()  # it is returned, too, and modules may work in place

    def output(self, x: Tensor, h: Tensor) -> Tensor:
        return self.block.output(x, h)

    def inexact_reason(self, memory: str) -> str | None:
        if (activation := self.block.activation) in FORGOTTEN_BITS:
            return None
        prices = ", ".join(f"{name} ({bits:g} bits)" for name, bits in FORGOTTEN_BITS.items())
        return (
            f"activation={activation!r} cannot be inverted: memory={memory!r} takes {prices}; "
            "memory='checkpoint' and 'recompute' take any activation"
        )

    def bits_of_weights(self) -> Tensor:
        """Return the bits that recurrent weights forget in a step of a sequence, on average."""
        if self.block.activation != "identity":
            raise ValueError(
                "stored_bits counts what decays forget: activation must be 'identity'; got "
                f"{self.block.activation!r} in {self.name}"
            )
        return self._bits(self.block.recurrent_weight)

    def _bits(self, decay: Tensor) -> Tensor:
        return (1 + is_selective(self.block)) * stored_bits(decay).double().sum()  # of h, and of c

    def expected_bits(self) -> float:
        usual = getattr(self.block, "usual_decay", lambda: self.block.recurrent_weight)
        of_g = FORGOTTEN_BITS[self.block.activation] * self.width  # at most
        return float(self._bits(usual().detach())) + of_g

    def exact_state(self, state: State) -> States:
        h, c = state
        fixed_scan.vectorizes(h)  # raises an error if there are no kernels
        sizes = [self.block.recurrent_weight, torch.stack((h, c))]
        weight, size = (float(x.detach().abs().max()) if x.numel() else 0.0 for x in sizes)
        if not weight <= 1:
            raise ValueError(
                f"{self.name}: recurrent weights must lie in [-1, 1] to be inverted, but the "
                f"largest has absolute value {weight:.9g}; call clip_recurrent_weights_() after "
                "each step of the optimizer"
            )
        if not size < LARGEST_VALUE:
            raise overflow(f"{self.name}, initial state")
        return States.of(h, c)

    def forward_exact(
        self, drive: Drive, states: States, steps: Steps, *, record: bool = False,
        save: bool = False,
    ) -> tuple[Pass, Tensor, Tensor]:  # fmt: skip
        return fixed_scan.forward(
            drive[0], states, self.weights(drive, steps.batch), record=record, save=save,
            resets=steps.resets, batch_sizes=steps.batch_sizes, name=self.name,
        )  # fmt: skip

    def inverse_exact(
        self, drive: Drive, states: States, buffer: Buffer, steps: Steps
    ) -> tuple[Pass, Buffer]:
        weights, layout = self.weights(drive, steps.batch), (steps.resets, steps.batch_sizes)
        return fixed_scan.inverse(drive[0], states, buffer, weights, *layout)

    def with_gradient(self, result: Pass, drive: Drive, state: State, steps: Steps) -> Result:
        options = fixed_scan.vectorizes(drive[0]), steps.resets, steps.batch_sizes
        weights = self.weights(drive, steps.batch)
        out, *final = weights.gradient(result, drive[0], state, *options)
        return out, tuple(final)
