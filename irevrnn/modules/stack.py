"""The stack of blocks: :class:`IRevStack`."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

from irevrnn.modules.base_stack import BaseStack
from irevrnn.modules.block import is_recurrent, reads_tokens
from irevrnn.modules.cell import IRevRNNCell
from irevrnn.modules.gated_block import IRevBlock
from irevrnn.modules.layer import IRevRNNLayer
from irevrnn.modules.projection import Projection
from irevrnn.strategies.rules import require, unsupported_reason
from irevrnn.strategies.stack import Stack

#: What a recurrent block must have besides ``recurrent_weight``.
_INTERFACE = (
    "project", "output", "hidden_size", "coupling_a", "coupling_b", "activation",
    "coupling_activation",
)  # fmt: skip
#: What a stack calls of a recurrent block.
_METHODS = ("forward", "project", "output")
#: Norms that expect the features in the second dimension.
_CHANNELS_SECOND = (
    nn.BatchNorm1d, nn.LazyBatchNorm1d, nn.SyncBatchNorm, nn.InstanceNorm1d, nn.LazyInstanceNorm1d,
    nn.GroupNorm, nn.LocalResponseNorm,
)  # fmt: skip
#: What drops all features of a step of (T, B, features).
_DROPS_STEPS = nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.FeatureAlphaDropout
#: What looks beyond a step of (T, B, features).
_BEYOND_STEPS = (
    _ConvNd, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool2d, nn.AvgPool3d, nn.MultiheadAttention,
    nn.Transformer, nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.TransformerDecoder,
    nn.TransformerDecoderLayer,
)  # fmt: skip
#: What returns its states besides its output, and so is no block.
_WHOLE = (BaseStack, IRevRNNCell, nn.RNNBase, nn.RNNCellBase)


class IRevStack(BaseStack):
    r"""A stack of blocks around reversible recurrences, trained with one strategy.

    Each step goes through all blocks, from the first to the last. With ``checkpoint`` and
    ``reversible`` nothing of a block is saved but what its recurrence needs: all that stands
    between two recurrences is computed again from the input.

    Args:
        blocks: from the bottom up, each one of

            - a recurrent block: an :class:`irevrnn.IRevBlock`, a :class:`irevrnn.Block` of your
              own, or any module with their ``project``, ``output`` and parameters;
            - any other module that maps (..., in) to (..., out) and treats each step by itself,
              such as an ``nn.Linear`` that embeds the input (:func:`irevrnn.check_stepwise` finds
              out whether a module does). The first may be an ``nn.Embedding``, or an
              ``nn.Sequential`` that begins with one.

            At least one is recurrent. Blocks may be shared.
        memory: what is saved for the backward pass: ``store``, ``recompute``, ``checkpoint``,
            ``reversible`` or ``auto``; see :mod:`irevrnn.strategies`.
        memory_budget: for ``memory="auto"``, ``"checkpoint"`` and ``"reversible"``, as for
            :class:`irevrnn.IRevRNN`.
        batch_first: whether input and output are (batch, seq, feature), the default, or (seq,
            batch, feature).

    Inputs:
        - **input**: (batch, seq, in) with ``batch_first``, else (seq, batch, in), or (seq, in)
          without a batch; or a ``PackedSequence``. For an ``nn.Embedding``, integers without the
          last dimension.
        - **hidden**: ``(h_0, c_0)``, each (number of recurrent blocks, batch, hidden_size), or
          without the batch dimension for unbatched input. Where the blocks have different hidden
          sizes, each is a tuple of tensors (batch, hidden_size). Zeros if not given.
        - **lengths** (keyword): (batch,) integers, the lengths of padded sequences. Steps
          beyond the end of a sequence are neither read nor computed; their output is 0.
        - **resets** (keyword): bool, (batch, seq) with ``batch_first``, else (seq, batch); (seq,)
          without a batch; for a ``PackedSequence``, in the order of its ``data``. Where it is true,
          the states of the sequence are set to zero before the step, and no gradient passes.
        - **return_sequence** (keyword): whether ``output`` holds all steps or the last one alone.

    Outputs:
        - **output**: of the last block, (batch, seq, out) with ``batch_first``, else (seq, batch,
          out), or packed like the input; (batch, out), the last step of each sequence, if
          ``return_sequence=False``; without the batch dimension for unbatched input.
        - **(h_n, c_n)**: final states of the recurrent blocks, in the form of ``hidden``.

    Raises:
        ValueError: there is no recurrent block, widths do not fit, the input does not fit, a block
            returns another shape or dtype than it should, or the strategy cannot serve.
        TypeError: ``blocks`` is no list of modules, or one of them runs sequences by itself, as an
            ``IRevRNN`` or ``nn.LSTM`` does.
        NotImplementedError: forward-mode differentiation through the compiled kernels;
            ``checkpoint`` and ``reversible`` under ``torch.func`` or ``torch.jit.trace``, or with
            batched or forward-mode gradients.
        OverflowError: in training with ``reversible``, a value is NaN or too large for fixed point.
        RuntimeError: training with ``reversible`` without the compiled kernels; gradients of
            gradients with it or ``checkpoint``; in the backward pass of ``checkpoint``, a chunk
            ends in other states.
        irevrnn.ReversalError: (in the backward pass of ``reversible``) the reconstructed states
            differ from those of the forward pass.

    Example::

        >>> model = IRevStack([nn.Linear(10, 32), IRevBlock(32, 64), IRevBlock(32, 64)])
        >>> output, (h_n, c_n) = model(torch.randn(8, 100, 10))
        >>> output.shape, h_n.shape
        (torch.Size([8, 100, 32]), torch.Size([2, 8, 64]))
    """

    def __init__(
        self,
        blocks: Iterable[nn.Module],
        memory: str = "recompute",
        memory_budget: float | str | None = None,
        batch_first: bool = True,
    ) -> None:
        if not isinstance(blocks, Iterable):
            raise TypeError(f"blocks must be a list of modules; got {type(blocks).__name__}")
        super().__init__(memory, memory_budget, batch_first)
        blocks = list(blocks)
        _check_blocks(blocks)
        self.blocks = nn.ModuleList(blocks)
        recurrent = [block for block in blocks if is_recurrent(block)]
        activations: list[Any] = [block.activation for block in recurrent]
        require(unsupported_reason(memory, activations=activations))

    def _stack(self) -> Stack:
        return Stack(list(self.blocks), costs=self._costs)

    def _input_features(self) -> int | None:
        return _widths(self.blocks[0])[0]

    def _reads_tokens(self) -> bool:
        return reads_tokens(self.blocks[0])

    def extra_repr(self) -> str:
        """Return the arguments beside the blocks."""
        budget = "" if self.memory_budget is None else f", memory_budget={self.memory_budget}"
        return f"memory={self.memory!r}{budget}, batch_first={self.batch_first}"


def _check_blocks(blocks: list[nn.Module]) -> None:
    """Raise an error unless a stack can consist of these blocks."""
    names = [f"block {index} ({type(block).__name__})" for index, block in enumerate(blocks)]
    for place, (name, block) in enumerate(zip(names, blocks, strict=True)):
        if not isinstance(block, nn.Module):
            raise TypeError(f"{name}: each block must be a torch.nn.Module")
        if isinstance(block, _WHOLE):
            raise TypeError(
                f"{name} carries states of its own, so it is no block: take an IRevBlock, or the "
                "layers of an IRevRNN"
            )
        if place and reads_tokens(block):
            raise TypeError(f"{name} reads integers, so it must be the first block")
        _check_dimensions(name, block)
        if not is_recurrent(block):
            continue
        if missing := [each for each in _INTERFACE if not hasattr(block, each)]:
            raise TypeError(f"{name} has a recurrent_weight, but not {', '.join(missing)}")
    if not any(map(is_recurrent, blocks)):
        raise ValueError(
            f"blocks must hold at least one with a recurrence; got {names or 'an empty list'}"
        )
    for (below, name), (above, name_above) in pairwise(zip(blocks, names, strict=True)):
        width, wanted = _widths(below)[1], _widths(above)[0]
        if width is not None and wanted is not None and width != wanted:
            raise ValueError(
                f"blocks do not fit: {name} returns {width} features, {name_above} takes {wanted}"
            )
    _check_same(blocks, names)


def _check_dimensions(name: str, block: nn.Module) -> None:
    """Raise a TypeError if a module takes dimensions of (T, B, features) for others."""
    if type(block) is nn.Sequential:
        for child in block:
            _check_dimensions(f"{name}, {type(child).__name__}", child)
    if type(block) in _CHANNELS_SECOND:
        raise TypeError(
            f"{name} normalises the second dimension, which holds sequences unless they are "
            "packed: take nn.LayerNorm, or an IRevBlock with norm='batch'"
        )
    if type(block) in _DROPS_STEPS:
        raise TypeError(
            f"{name} drops all features of single steps: take nn.Dropout, or irevrnn.Dropout, "
            "which drops the same features in every step"
        )
    if isinstance(block, _BEYOND_STEPS) and type(block).__module__.startswith("torch.nn."):
        raise TypeError(
            f"{name} looks beyond the single step (..., features) that a module of a stack may "
            "see, and would take sequences or steps for channels: run it before or behind the "
            "stack, or inside a module that gives it one step at a time"
        )


def _check_same(blocks: list[nn.Module], names: list[str]) -> None:
    """Raise a ValueError unless all parameters are on one device and of one dtype."""
    floating = (p for block in blocks for p in block.parameters() if p.is_floating_point())
    if (first := next(floating, None)) is None:
        return
    for name, block in zip(names, blocks, strict=True):
        for parameter in block.parameters():
            if parameter.device != first.device:
                raise ValueError(
                    f"blocks must be on one device; got {first.device}, and {parameter.device} in "
                    f"{name}"
                )
            if parameter.is_floating_point() and parameter.dtype != first.dtype:
                raise ValueError(
                    f"blocks must have one dtype; got {first.dtype}, and {parameter.dtype} in "
                    f"{name}"
                )


def _widths(block: Any) -> tuple[int | None, int | None]:
    """Return the features that a block takes and returns, as far as they are known.

    A subclass with methods of its own may have others.
    """
    kind = type(block)
    if getattr(kind, "forward", None) in (nn.Linear.forward, Projection.forward):
        return block.in_features or None, block.out_features  # 0 in nn.LazyLinear
    if getattr(kind, "forward", None) is nn.Embedding.forward:
        return None, block.embedding_dim
    if isinstance(block, IRevBlock) and _inherits(kind, IRevBlock):
        return block.width, block.width
    if isinstance(block, IRevRNNLayer) and _inherits(kind, IRevRNNLayer):
        return block.input_size, block.hidden_size
    return None, None


def _inherits(kind: Any, known: Any) -> bool:
    """Return whether a class has the methods of another that a stack calls."""
    return all(getattr(kind, name) is getattr(known, name) for name in _METHODS)
