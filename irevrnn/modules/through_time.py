"""Any recurrent network through time in bounded memory: :class:`ThroughTime`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from irevrnn.modules.base_stack import StrategyModule
from irevrnn.modules.sequences import SequenceBatch
from irevrnn.recurrences.stateful import check_one_direction, is_stateful
from irevrnn.strategies.stack import Stack


class ThroughTime(StrategyModule):
    r"""Train any recurrent network on long sequences in bounded memory, with the same gradients.

    The network runs chunk by chunk, and only its states between chunks are kept; the backward pass
    runs each chunk once more. In an :class:`irevrnn.IRevStack`, the strategy of the stack replaces
    ``memory``.

    Args:
        rnn: an ``nn.LSTM``, ``nn.GRU`` or ``nn.RNN`` in one direction, or any module
            ``forward(x, state) -> (y, state)`` over any number of steps. Time is the first
            dimension of x and y, unless ``rnn.batch_first`` is true: then the second. The state is
            None at the start, else a tensor or nested tuples of tensors, and all that the module
            knows of earlier steps.
        memory: ``"checkpoint"`` keeps the states between chunks. ``"store"`` runs the network as
            it is. ``"auto"`` does that if it fits ``memory_budget``, and keeps checkpoints that do
            otherwise.
        memory_budget: as for :class:`irevrnn.IRevStack`, in bytes or as text such as ``"30MB"``.

    Inputs:
        - **input**, **state**: what ``rnn`` takes; or a ``PackedSequence``.
        - **lengths**, **resets** (keywords): as for :class:`irevrnn.IRevStack`.

    Outputs: what ``rnn`` returns.

    Random numbers from PyTorch's global generators, such as those of dropout, are replayed. Hooks
    on the network run for every chunk, hooks on parameters once. The state_dict is that of the
    network, with the prefix ``rnn``.

    Raises:
        RuntimeError: (in the backward pass) a chunk ends in other states than before, as a module
            keeps a state elsewhere; or gradients of gradients are asked for.

    Example::

        >>> rnn = ThroughTime(nn.LSTM(10, 64, num_layers=2), memory_budget="30MB")
        >>> output, (h_n, c_n) = rnn(torch.randn(100_000, 1, 10))
        >>> output.sum().backward()
    """

    _strategies = ("store", "checkpoint", "auto")

    def __init__(
        self, rnn: nn.Module, memory: str = "checkpoint", memory_budget: float | str | None = None
    ) -> None:
        super().__init__(memory, memory_budget)
        other = not isinstance(rnn, nn.Module) or isinstance(rnn, nn.RNNCellBase | StrategyModule)
        if other or not is_stateful(rnn):
            raise TypeError(
                "rnn must be an nn.LSTM, nn.GRU, nn.RNN or a module whose forward(x, state) takes "
                f"any number of steps and returns (y, state); got {type(rnn).__name__}"
            )
        check_one_direction(rnn, "rnn")
        self.rnn = rnn

    def _stack(self) -> Stack:
        return Stack([self.rnn], label="rnn")

    def forward(
        self, input: Tensor | PackedSequence, state: Any = None, *,
        lengths: Tensor | Sequence[int] | None = None, resets: Tensor | None = None,
    ) -> tuple[Tensor | PackedSequence, Any]:  # fmt: skip
        """Run the network over a sequence; see the class for shapes."""
        output, (final,) = self._run(input, (state,), lengths, resets)
        return output, final

    def _batch(self, stack: Stack, input: Any, lengths: Any) -> SequenceBatch:
        if isinstance(input, PackedSequence):
            return SequenceBatch.of(input, lengths, False)
        unbatched = isinstance(self.rnn, nn.RNNBase) and input.dim() == 2
        batch_first = getattr(self.rnn, "batch_first", False) is True and not unbatched
        time = 1 if batch_first else 0
        if input.dim() <= time or input.shape[time] == 0:
            raise ValueError(
                f"input must have at least one step in dimension {time}; got shape "
                f"{tuple(input.shape)}"
            )
        return SequenceBatch.of(input, lengths, batch_first, not unbatched)
