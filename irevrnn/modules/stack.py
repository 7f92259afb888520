"""The stack of blocks: :class:`IRevStack`."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from irevrnn.modules.base_stack import BaseStack
from irevrnn.modules.cell import IRevRNNCell
from irevrnn.modules.through_time import ThroughTime
from irevrnn.recurrences.stateful import check_one_direction, is_stateful
from irevrnn.strategies.rules import require, unsupported_reason
from irevrnn.strategies.stack import Stack, is_block, recurrence_of

#: Modules of PyTorch that take dimensions of (T, B, features) for others.
_OTHER_DIMENSIONS = (
    _NormBase, nn.GroupNorm, nn.LocalResponseNorm, _ConvNd, nn.Dropout1d, nn.Dropout2d,
    nn.Dropout3d, nn.FeatureAlphaDropout,
)  # fmt: skip
#: What has a strategy of its own, or runs one step alone, and so is no block.
_NO_BLOCKS = (BaseStack, IRevRNNCell, nn.RNNCellBase)


class IRevStack(BaseStack):
    r"""A stack of blocks around reversible recurrences, trained with one strategy.

    With ``checkpoint`` and ``reversible``, all that stands between two recurrences is computed
    again from the input.

    Args:
        blocks: from the bottom up, at least one of them recurrent. Each is

            - a recurrent block: an :class:`irevrnn.IRevBlock`, a :class:`irevrnn.Block` of your
              own, or any module with their ``project``, ``output``, attributes and parameters;
            - any other recurrent network that :class:`irevrnn.ThroughTime` takes, such as an
              ``nn.LSTM``. It cannot be reversed;
            - any other module that maps (..., in) to (..., out) and treats each step by itself
              (:func:`irevrnn.check_stepwise`), such as an ``nn.Linear``. The first may be an
              ``nn.Embedding``, or an ``nn.Sequential`` that begins with one.
        memory: what is saved for the backward pass: ``store``, ``recompute``, ``checkpoint``,
            ``reversible`` or ``auto``; see :mod:`irevrnn.strategies`.
        memory_budget: memory that a forward and backward pass may need beyond input, output,
            parameters and their gradients, in bytes or as text such as ``"256MB"`` or ``"1GiB"``.
            ``memory="auto"`` requires a budget and runs the strategy that is expected to be fastest
            within it, ``picked.memory``. With ``"checkpoint"`` and ``"reversible"`` a budget is
            optional: chunks are then as long as it allows, up to the length that is fastest, and
            ``"checkpoint"`` keeps fewer states where it must.
        batch_first: whether input and output are (batch, seq, feature), the default, or (seq,
            batch, feature).

    Inputs:
        - **input**: (batch, seq, in) with ``batch_first``, else (seq, batch, in), or (seq, in)
          without a batch; or a ``PackedSequence``. For an ``nn.Embedding``, integers without the
          last dimension.
        - **hidden**: ``(h_0, c_0)``, each (number of recurrent blocks, batch, hidden_size), or
          without the batch dimension for unbatched input. Where the blocks have different hidden
          sizes, each is a tuple of tensors (batch, hidden_size). If not given: zeros, or what
          blocks with ``learn_initial_state`` learn. In a stack with other recurrent networks: a
          tuple of one state for each recurrence, ``(h, c)`` of a block, or what the network takes.
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

    In one direction, a sequence may be fed in pieces, each with the final states of the one before,
    with the same result up to rounding.

    Raises:
        NotImplementedError, RuntimeError: the strategy does not support a transform or a second
            derivative, lacks its kernels, or a module gives other results when it runs again.
        OverflowError: in training with ``reversible``, a value is NaN or too large for fixed point.
        irevrnn.ReversalError: (in the backward pass of ``reversible``) the reconstructed states
            differ from those of the forward pass.

    Example::

        >>> model = IRevStack([nn.Linear(10, 32), IRevBlock(32, 64), IRevBlock(32, 64)])
        >>> output, (h_n, c_n) = model(torch.randn(8, 100, 10))
        >>> output.shape, h_n.shape
        (torch.Size([8, 100, 32]), torch.Size([2, 8, 64]))
    """

    def __init__(
        self, blocks: Iterable[nn.Module], memory: str = "recompute",
        memory_budget: float | str | None = None, batch_first: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(memory, memory_budget, batch_first)
        self.blocks = nn.ModuleList(blocks)
        _check_blocks([*self.blocks])
        require(unsupported_reason(self._stack(), memory, running=False))

    def _stack(self) -> Stack:
        return Stack([b.rnn if isinstance(b, ThroughTime) else b for b in self.blocks])

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, batch_first={self.batch_first}"


def _check_blocks(blocks: list[nn.Module]) -> None:
    """Raise an error unless a stack can consist of these blocks."""
    names = [f"block {index} ({type(block).__name__})" for index, block in enumerate(blocks)]
    for name, block in zip(names, blocks, strict=True):
        if isinstance(block, _NO_BLOCKS):
            raise TypeError(
                f"{name} has a strategy of its own, or runs single steps, so it is no block: take "
                "an IRevBlock, the layers of an IRevRNN, or an nn.LSTM"
            )
        _check_dimensions(name, block)
        if not is_block(block) and is_stateful(block):
            check_one_direction(getattr(block, "rnn", block), name)
    if not any(recurrence_of(block, name) for name, block in zip(names, blocks, strict=True)):
        raise ValueError(
            f"blocks must hold at least one with a recurrence; got {names or 'an empty list'}"
        )


def _check_dimensions(name: str, block: nn.Module) -> None:
    """Raise a TypeError if a module takes dimensions of (T, B, features) for others."""
    if type(block) is nn.Sequential:
        for child in block:
            _check_dimensions(f"{name}, {type(child).__name__}", child)
    if isinstance(block, _OTHER_DIMENSIONS) and type(block).__module__.startswith("torch.nn."):
        raise TypeError(
            f"{name} would take sequences or steps for channels: take nn.LayerNorm or an IRevBlock "
            "with norm='batch', nn.Dropout or irevrnn.Dropout, or run it before or behind the stack"
        )
