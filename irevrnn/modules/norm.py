"""The norms of a layer's projection and of a block's input."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from irevrnn.kernels.ops import HALF


class LayerNorm(nn.LayerNorm):
    """``nn.LayerNorm`` with the same parameters, results (but for rounding) and gradients.

    For an input in half precision on the CPU, PyTorch also sums the gradients of weight and bias in
    half precision, where a sum over some hundreds of steps stops growing; here, in float32.
    """

    def forward(self, input: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        # Under autocast the input alone may be in half precision.
        if not input.is_cpu or weight is None or not {input.dtype, weight.dtype} & {*HALF}:
            return super().forward(input)
        single = weight.float(), None if bias is None else bias.float()
        y = F.layer_norm(input.float(), self.normalized_shape, *single, self.eps)
        return y.to(input.dtype)


def make_norm(norm: str | None, features: int, **factory: Any) -> nn.Module:
    """Return the module of a norm's name; raise a ValueError if there is no such norm."""
    if norm is None:
        return nn.Identity()
    if norm not in ("layer", "batch"):
        raise ValueError(f"norm must be None, 'layer' or 'batch'; got {norm!r}")
    return (LayerNorm if norm == "layer" else nn.BatchNorm1d)(features, **factory)


def normalize(norm: nn.Module, x: Tensor) -> Tensor:
    """Normalise (..., features); batch statistics run over all but the last dimension."""
    if isinstance(norm, _BatchNorm):  # nn.SyncBatchNorm, too
        return norm(x.flatten(0, -2)).view_as(x)
    return norm(x)
