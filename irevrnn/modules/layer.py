"""The plain block: one layer of :class:`irevrnn.IRevRNN`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from irevrnn.modules import initial_values
from irevrnn.modules.block import Block
from irevrnn.modules.checks import check_count
from irevrnn.modules.dropout import Dropout
from irevrnn.modules.norm import make_norm, normalize
from irevrnn.modules.projection import Projection


class IRevRNNLayer(Block):
    """One layer of :class:`irevrnn.IRevRNN`: projection, normalisation and recurrence.

    Arguments are those of :class:`irevrnn.IRevRNN`, and ``options`` of :class:`irevrnn.Block`.

    Attributes:
        projection: ``nn.Linear(input_size, hidden_size)``, the only place where units mix.
        norm: ``nn.LayerNorm``, ``nn.BatchNorm1d`` or ``nn.Identity``, applied to the projection.
    """

    _is_called = True  # by ``project``, so that a stack need not run its hooks

    def __init__(
        self, input_size: int, hidden_size: int, num_couplings: int = 3, *,
        activation: str = "relu", coupling_activation: str = "tanh", bias: bool = True,
        norm: str | None = None, residual: bool = False, longest_period: float | None = None,
        **options: Any,
    ) -> None:  # fmt: skip
        check_count("input_size", input_size, 1)
        super().__init__(
            hidden_size, num_couplings, activation=activation,
            coupling_activation=coupling_activation, longest_period=longest_period, **options,
        )  # fmt: skip
        self.input_size, self.bias, self.residual = input_size, bias, residual
        factory = {"device": self.coupling_a.device, "dtype": self.coupling_a.dtype}
        self.projection = Projection(input_size, hidden_size, bias, **factory)
        self.norm = make_norm(norm, hidden_size, **factory)
        self.dropout = Dropout(0.0)
        self.reset_recurrence()

    @torch.no_grad()
    def reset_recurrence(self, shortest_memory: float = initial_values.SHORTEST_MEMORY) -> Tensor:
        """Draw memories, periods independently of them, and a projection that goes with them.

        A unit adds up 1 / (1 - u) steps of its input projection. If that starts 1 - u times as
        large, h is a weighted mean of what arrives: of order 1, whatever the unit's memory.
        """
        a, b = self.coupling_a, self.coupling_b
        tau = initial_values.draw_memories_(
            self.recurrent_weight, shortest_memory, self.longest_memory
        )
        scale = -torch.expm1(-1 / tau)  # 1 - u, also where u is rounded to 1
        linear = isinstance(self.projection, nn.Linear)  # another one is not scaled
        if linear:
            self.projection.reset_parameters()
        if isinstance(self.norm, nn.LayerNorm | _BatchNorm):  # nn.SyncBatchNorm, too
            if self.norm.weight is not None:
                # Half: nn.Linear makes projections of about that size, of an input of variance 1.
                self.norm.weight.copy_(scale / 2)
        elif linear:
            self.projection.weight.mul_(scale.unsqueeze(1))
            if self.projection.bias is not None:
                self.projection.bias.mul_(scale)
        initial_values.draw_couplings_(a, b)
        if self.longest_period is not None:
            initial_values.draw_periods_(a, b, self.shortest_period, self.longest_period)
        return tau

    def forward(self, x: Tensor) -> Tensor:
        # Under autocast, what sums over steps stays in full precision: the norm and the state.
        z = self.projection(x).to(self.recurrent_weight.dtype)
        return normalize(self.norm, z)

    def project(self, x: Tensor) -> Tensor:
        return self(x)  # as a call, so that hooks run

    def output(self, x: Tensor, h: Tensor) -> Tensor:
        return self.dropout(h + x if self.residual else h)
