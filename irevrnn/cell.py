"""One step at a time: :class:`IRevRNNCell`, used like ``nn.LSTMCell``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from irevrnn.activations import get_activation
from irevrnn.functional import scan
from irevrnn.rnn import IRevRNNLayer, check_count


class IRevRNNCell(nn.Module):
    r"""One step of one layer of :class:`irevrnn.IRevRNN`, for streams and loops of one's own.

    It is the layer's own recurrence, so steps give the bits of the whole sequence at once, as long
    as the input drive has the same bits: a matrix product of one row may round differently from one
    of many. A trained layer moves in with
    ``cell.layer.load_state_dict(model.layers[0].state_dict())``.

    Args:
        input_size, hidden_size, num_couplings, activation, coupling_activation, bias, norm: as for
            :class:`irevrnn.IRevRNN`.
        device, dtype: of the parameters.

    Inputs:
        - **input**: (batch, input_size), or (input_size,).
        - **hidden**: ``(h, c)``, each (batch, hidden_size), or (hidden_size,) without a batch.
          Zeros if not given.

    Outputs:
        - **(h, c)** after the step, in the shape of ``hidden``.

    Raises:
        ValueError: an argument or a shape does not fit.
        TypeError: ``hidden`` is no pair.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_couplings: int = 3,
        activation: str = "relu",
        coupling_activation: str = "tanh",
        bias: bool = True,
        norm: str | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_count("input_size", input_size, 1)
        check_count("hidden_size", hidden_size, 1)
        check_count("num_couplings", num_couplings, 0)
        get_activation(activation)
        get_activation(coupling_activation, "coupling_activation")
        self.input_size, self.hidden_size = input_size, hidden_size
        self.activation, self.coupling_activation = activation, coupling_activation
        self.layer = IRevRNNLayer(input_size, hidden_size, num_couplings, bias, norm, device, dtype)

    def forward(
        self, input: Tensor, hidden: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run one step; see the class for shapes."""
        if input.dim() not in (1, 2) or input.shape[-1] != self.input_size:
            raise ValueError(
                f"input must be (batch, {self.input_size}) or ({self.input_size},); got shape "
                f"{tuple(input.shape)}"
            )
        x = input if input.dim() == 2 else input.unsqueeze(0)
        z = self.layer(x).unsqueeze(0)
        h_0, c_0 = self._states(z, hidden, batched=input.dim() == 2)
        layer = self.layer
        _, h, c = scan(
            z, h_0, c_0, layer.recurrent_weight, layer.coupling_a, layer.coupling_b,
            self.activation, self.coupling_activation,
        )  # fmt: skip
        return (h, c) if input.dim() == 2 else (h[0], c[0])

    def _states(
        self, z: Tensor, hidden: tuple[Tensor, Tensor] | None, batched: bool
    ) -> tuple[Tensor, Tensor]:
        shape = z.shape[1:]
        if hidden is None:
            zeros = z.new_zeros(shape)
            return zeros, zeros
        if not (isinstance(hidden, tuple | list) and len(hidden) == 2):
            raise TypeError(f"hidden must be a pair (h, c); got {type(hidden).__name__}")
        wanted = tuple(shape) if batched else tuple(shape[1:])
        for name, state in zip("hc", hidden, strict=True):
            if tuple(state.shape) != wanted:
                raise ValueError(f"{name} must have shape {wanted}; got {tuple(state.shape)}")
        h, c = (state.to(z.dtype).reshape(shape) for state in hidden)
        return h, c

    def extra_repr(self) -> str:
        """The sizes, and the nonlinearities where they are not the defaults."""
        shown = [f"{self.input_size}, {self.hidden_size}"]
        if self.activation != "relu":
            shown.append(f"activation={self.activation!r}")
        if self.coupling_activation != "tanh":
            shown.append(f"coupling_activation={self.coupling_activation!r}")
        return ", ".join(shown)
