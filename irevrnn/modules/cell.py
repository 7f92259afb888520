"""One step at a time: :class:`IRevRNNCell`, used like ``nn.LSTMCell``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from irevrnn.modules.checks import (
    check_kind,
    check_resets,
    check_states,
    check_tensor,
    describe_arguments,
)
from irevrnn.modules.fused import can_fuse, norm_arguments
from irevrnn.modules.layer import IRevRNNLayer
from irevrnn.modules.sequences import Hidden
from irevrnn.modules.stability import Recurrent
from irevrnn.recurrences.oscillator import Weights
from irevrnn.strategies.rules import RECURRENCE


class IRevRNNCell(Recurrent):
    r"""One step of one layer of :class:`irevrnn.IRevRNN`, for streams and for loops of your own.

    It computes what the layer does for the whole sequence, up to the rounding of matrix products.
    :meth:`of` makes a cell from a trained layer, which is its attribute ``layer``.

    Args:
        input_size, hidden_size, num_couplings, activation, coupling_activation, bias: as for
            :class:`irevrnn.IRevRNN`, and so are ``device`` and ``dtype``.
        norm: likewise; but in training, ``"batch"`` takes the statistics of this one step.

    Inputs:
        - **input**: (batch, input_size), or (input_size,).
        - **hidden**: ``(h, c)``, each (batch, hidden_size), or (hidden_size,) without a batch.
          Zeros if not given.
        - **resets**: bool, (batch,) or () without a batch: where it is true, the states are set to
          zero before the step, and no gradient passes.

    Outputs:
        - **(h, c)** after the step, in the shape of ``hidden``.
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_couplings: int = 3, *,
        activation: str = "relu", coupling_activation: str = "tanh", bias: bool = True,
        norm: str | None = None, device: Any = None, dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.layer = IRevRNNLayer(
            input_size, hidden_size, num_couplings, activation=activation,
            coupling_activation=coupling_activation, bias=bias, norm=norm, device=device,
            dtype=dtype,
        )  # fmt: skip

    @classmethod
    def of(cls, layer: IRevRNNLayer) -> IRevRNNCell:
        """Return a cell that runs ``layer``, one of the ``layers`` of an :class:`irevrnn.IRevRNN`.

        The layer becomes part of the cell: what changes one, such as ``eval()``, changes the other.
        ``residual`` and ``dropout`` of the network, and the order of steps of ``reverse_layers``,
        are left to the caller.
        """
        if not isinstance(layer, IRevRNNLayer):
            raise TypeError(
                f"layer must be one of the layers of an IRevRNN; got {type(layer).__name__}: run "
                "IRevStack([block]) on sequences of one step instead"
            )
        cell = cls(1, 1, device="meta")
        cell.layer, cell.training = layer, layer.training
        return cell

    def forward(
        self, input: Tensor, hidden: Hidden | None = None, resets: Tensor | None = None
    ) -> Hidden:
        """Run one step; see the class for shapes."""
        check_tensor("input", input)
        size = self.layer.input_size
        if input.dim() not in (1, 2) or input.shape[-1] != size:
            raise ValueError(
                f"input must be (batch, {size}) or ({size},); got shape {tuple(input.shape)}"
            )
        if resets is not None:
            check_resets(resets, tuple(input.shape[:-1]))
        if (states := self._fused_step(input, hidden, resets)) is not None:
            return states
        batched, layer = input.dim() == 2, self.layer
        check_kind("input", input, layer.recurrent_weight)
        z = layer(input if batched else input.unsqueeze(0)).unsqueeze(0)
        shape = (*input.shape[:-1], layer.hidden_size)
        if hidden is None:
            hidden = z.new_zeros(shape), z.new_zeros(shape)
        check_states(hidden, shape, z)
        h_0, c_0 = (state.to(z.dtype).reshape(z.shape[1:]) for state in hidden)
        resets = None if resets is None else resets.reshape(1, -1)
        _, h, c = Weights.of(layer).scan(z, (h_0, c_0), resets=resets)
        return h.view(shape), c.view(shape)

    def _fused_step(self, input: Tensor, hidden: Any, resets: Tensor | None) -> Hidden | None:
        """Run one step by the compiled operator; return None where the layer has to be called."""
        # As attributes, the modules and parameters would take as long as the checks do.
        layer: Any = self._modules.get("layer")
        if type(layer) is not IRevRNNLayer or type(hidden) is not tuple or len(hidden) != 2:
            return None
        norm: Any = layer._modules.get("norm")
        projection: Any = layer._modules.get("projection")
        h, c = hidden
        normed = norm_arguments(norm, layer.hidden_size)
        if normed is None or not can_fuse((input, h, c), layer, norm, projection):
            return None
        *batch, _ = input.shape
        shape = (*batch, layer.hidden_size)
        if h.shape != shape or c.shape != shape:
            return None
        own, linear = layer._parameters, projection._parameters
        u, a, b = (own.get(name) for name in RECURRENCE)
        if u is None or a is None or b is None:  # they are pruned or parametrized
            return None
        options = layer.activation, layer.coupling_activation, True, resets
        step = torch.ops.irevrnn.layer_step.default
        return step(input, linear["weight"], linear["bias"], *normed, h, c, u, a, b, *options)

    def extra_repr(self) -> str:
        return describe_arguments(self.layer, IRevRNNCell.__init__)
