"""The layer: :class:`IRevRNN`, used like ``nn.LSTM``."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from irevrnn.modules.base_stack import BaseStack
from irevrnn.modules.checks import check_count, check_number, describe_arguments
from irevrnn.modules.initial_values import LONGEST_MEMORY, SHORTEST_PERIOD
from irevrnn.modules.layer import IRevRNNLayer
from irevrnn.strategies.rules import require, unsupported_reason
from irevrnn.strategies.stack import Stack


class IRevRNN(BaseStack):
    r"""A stack of reversible, independently recurrent layers, used like ``nn.LSTM``.

    Layer by layer, with :math:`z_t = \mathrm{norm}(W x_t + \beta)`, the cell of
    :func:`irevrnn.scan` computes :math:`h_t` and :math:`c_t` for all steps.

    Args:
        input_size: features of the input.
        hidden_size: H, units of each layer.
        num_layers: layers stacked on one another.
        num_couplings: R, additive couplings between output and cell state; 0 is IndRNN. All
            further arguments are keyword-only.
        activation, coupling_activation: nonlinearities g and f of the cell, as for
            :func:`irevrnn.scan`.
        bias: whether the projection has a bias.
        batch_first: whether input and output are (batch, seq, feature), the default, unlike that
            of ``nn.LSTM``, or (seq, batch, feature).
        dropout: probability, in [0, 1), of dropping a unit between layers, by
            :class:`irevrnn.Dropout`.
        bidirectional: a second stack reads each sequence from its end, as in ``nn.LSTM``. Not for
            ``checkpoint`` and ``reversible``.
        norm: of the input projection: ``None``, ``"layer"``, or ``"batch"`` (statistics over all
            steps and the batch; not with ``checkpoint`` and ``reversible`` in training).
        residual: add a layer's input to its output where the two have the same size.
        memory, memory_budget: as for :class:`irevrnn.IRevStack`.
        shortest_period: shortest period of oscillators, above 2 steps.
        longest_period: if given, the first coupling starts with weights a = -b that make each unit
            an oscillator, with a period drawn log-uniformly from ``shortest_period`` to this number
            of steps (for small states, and a coupling nonlinearity of slope 1 at 0, as tanh's).
            ``None`` starts all couplings near 0.
        longest_memory: units start with recurrent weights u = exp(-1 / tau) and time constants tau
            drawn log-uniformly from 1 to this number of steps; one that oscillates remembers for
            2 tau.
        device, dtype: of the parameters.

    Inputs, outputs and errors are those of :class:`irevrnn.IRevStack`, from (batch, seq,
    input_size) to h of the last layer, (batch, seq, hidden_size), with states (num_layers, batch,
    hidden_size).

    If bidirectional, states are (2 * num_layers, batch, hidden_size), the directions of a layer
    next to one another, and ``output`` has twice as many features, those of the forward direction
    first. Resets part a sequence between the same two steps in each direction.

    The ``state_dict`` holds, for every layer: ``layers.0.recurrent_weight`` (H,), ``coupling_a``
    and ``coupling_b`` (R, H), ``projection.weight`` (H, in), ``projection.bias`` (H,), and entries
    of its ``norm``; those of the other direction are under ``reverse_layers``.

    Example::

        >>> model = IRevRNN(input_size=10, hidden_size=64, num_layers=2)
        >>> output, (h_n, c_n) = model(torch.randn(8, 100, 10))
        >>> output.shape, h_n.shape
        (torch.Size([8, 100, 64]), torch.Size([2, 8, 64]))
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, num_couplings: int = 3, *,
        activation: str = "relu", coupling_activation: str = "tanh", bias: bool = True,
        batch_first: bool = True, dropout: float = 0.0, bidirectional: bool = False,
        norm: str | None = None, residual: bool = False,
        memory: str = "recompute", memory_budget: float | str | None = None,
        shortest_period: float = SHORTEST_PERIOD, longest_period: float | None = None,
        longest_memory: float = LONGEST_MEMORY,
        device: Any = None, dtype: torch.dtype | None = None,
    ) -> None:  # fmt: skip
        super().__init__(memory, memory_budget, batch_first)
        check_count("num_layers", num_layers, 1)
        if dropout and num_layers == 1:
            warnings.warn(
                f"dropout={dropout} has no effect: it is for the output of every layer but the "
                "last, and num_layers=1",
                stacklevel=2,
            )
        self.input_size, self.hidden_size = input_size, hidden_size
        self.num_layers, self.num_couplings = num_layers, num_couplings
        self.activation, self.coupling_activation = activation, coupling_activation
        self.bias, self.norm = bias, norm
        self.residual, self.bidirectional = residual, bidirectional
        self.shortest_period, self.longest_period = shortest_period, longest_period
        self.longest_memory = longest_memory
        width = (2 if bidirectional else 1) * hidden_size

        def one_direction() -> nn.ModuleList:
            return nn.ModuleList(
                IRevRNNLayer(
                    features, hidden_size, num_couplings, activation=activation,
                    coupling_activation=coupling_activation, bias=bias, norm=norm,
                    residual=residual and features == width, shortest_period=shortest_period,
                    longest_period=longest_period, longest_memory=longest_memory, device=device,
                    dtype=dtype,
                ) for features in (input_size, *(width,) * (num_layers - 1))
            )  # fmt: skip

        self.layers = one_direction()
        self.reverse_layers: nn.ModuleList | tuple[()] = one_direction() if bidirectional else ()
        self.dropout = dropout
        require(unsupported_reason(self._stack(), memory, running=False))

    @property
    def dropout(self) -> float:
        """Probability of dropping a unit between layers."""
        return self._dropout

    @dropout.setter
    def dropout(self, p: float) -> None:
        check_number("dropout", p, 0, 1)
        self._dropout = float(p)
        for layer in (*self.layers[:-1], *self.reverse_layers[:-1]):
            layer.dropout.p = self._dropout  # type: ignore[union-attr]

    def _stack(self) -> Stack:
        return Stack(list(self.layers), list(self.reverse_layers), "layer")

    def extra_repr(self) -> str:
        return describe_arguments(self, IRevRNN.__init__)
