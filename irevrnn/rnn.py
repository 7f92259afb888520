"""The layer: :class:`IRevRNN`, used like ``nn.LSTM``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from irevrnn.layer import (
    LONGEST_MEMORY,
    SHORTEST_PERIOD,
    IRevRNNLayer,
    LayerSpec,
    check_count,
    check_number,
    describe_arguments,
)
from irevrnn.sequences import SequenceBatch, States
from irevrnn.strategies import auto
from irevrnn.strategies.chunks import chunk_length
from irevrnn.strategies.chunkwise import run_chunkwise
from irevrnn.strategies.layerwise import run_layerwise
from irevrnn.strategies.rules import (
    OF_THE_STACK,
    check_budget,
    check_strategy,
    not_a_graph,
    obstacle,
    require,
)
from irevrnn.strategies.saved_bytes import Plan, Workload
from irevrnn.strategies.stack import Stack, warn_of_large_states

_log = logging.getLogger("irevrnn")


class IRevRNN(nn.Module):
    r"""A stack of reversible, independently recurrent layers, used like ``nn.LSTM``.

    Layer by layer, with :math:`z_t = \mathrm{norm}(W x_t + \beta)`, the cell of
    :func:`irevrnn.scan` computes :math:`h_t` and :math:`c_t` for all steps.

    Args:
        input_size: features of the input.
        hidden_size: H, units of each layer.
        num_layers: layers stacked on one another.
        num_couplings: R, additive couplings between output and cell state; 0 is IndRNN.
        activation: output nonlinearity g: ``relu``, ``tanh``, ``sigmoid``, ``leaky_relu`` (slope
            1/4) or ``identity``.
        coupling_activation: coupling nonlinearity f, from the same list.
        bias: whether the projection has a bias.
        batch_first: input and output are (batch, seq, feature) instead of (seq, batch, feature).
        dropout: probability of dropping a unit between layers, with one mask for all steps of a
            sequence (variational dropout; Gal and Ghahramani, 2016).
        bidirectional: a second stack reads each sequence from its end; as in ``nn.LSTM``, each
            layer reads the outputs of both directions below it, and the output has 2 * hidden_size
            features, those of the forward direction first. For ``store`` and ``recompute``.
        norm: normalisation of the input projection: ``None``, ``"layer"``, or ``"batch"``
            (statistics over all steps and the batch).
        residual: add a layer's input to its output where the two have the same size.
        memory: what is saved for the backward pass: ``store``, ``recompute``, ``checkpoint``,
            ``reversible`` or ``auto``; see :mod:`irevrnn.strategies`.
        device, dtype: of the parameters.
        memory_budget: for ``memory="auto"``: bytes, or text such as ``"256MB"``, that a forward and
            backward pass may need beyond input, output, parameters and their gradients. The fastest
            strategy that is expected to keep within it runs. The attribute ``picked`` names it, and
            the logger ``irevrnn`` reports it at level INFO when it changes.
        longest_period: if given, the first coupling starts with weights a = -b that make each unit
            an oscillator, with a period drawn log-uniformly from ``shortest_period`` to this number
            of steps (for small states, and a coupling nonlinearity of slope 1 at 0, as tanh's).
            ``None`` starts all couplings near 0. It needs ``num_couplings`` of at least 1; ``relu``
            and ``leaky_relu`` as activation damp what is negative, and so most of the oscillation.
        shortest_period: the shortest of these periods, above 2 steps. With periods near 2, single
            steps can be told apart for as long as units remember.
        longest_memory: units start with recurrent weights u = exp(-1 / tau) and time constants tau
            drawn log-uniformly from 1 to this number of steps; one that oscillates remembers for
            2 tau.

    Inputs:
        - **input**: (batch, seq, input_size) with ``batch_first``, else (seq, batch, input_size),
          or (seq, input_size) without a batch; or a ``PackedSequence``, sorted by length or not.
        - **hidden**: ``(h_0, c_0)``, each (num_layers, batch, hidden_size), or without the batch
          dimension for unbatched input. If bidirectional, (2 * num_layers, ...), the directions of
          a layer next to one another. Zeros if not given.
        - **lengths** (keyword): (batch,) integers, the lengths of padded sequences. Steps
          beyond the end of a sequence are neither read nor computed; their output is 0.
        - **return_sequence** (keyword): whether ``output`` holds all steps or the last one alone.

    Outputs:
        - **output**: h of the last layer, (batch, seq, hidden_size) with ``batch_first``, else
          (seq, batch, hidden_size), or packed like the input; (batch, hidden_size), the last step
          of each sequence, if ``return_sequence=False``. With ``residual``, the input of the last
          layer is added. If bidirectional, twice as many features.
        - **(h_n, c_n)**: final states of all layers, in the shape of ``hidden``.

    A sequence may be fed in pieces, each with the final states of the one before. The result is
    that of the complete sequence, up to the rounding of matrix products; with ``reversible``, whose
    bit stacks are empty at the beginning of a piece, up to a noise below 2^-19 for each step.

    The ``state_dict`` holds, for every layer ``l``: ``layers.l.recurrent_weight`` (H,),
    ``layers.l.coupling_a`` and ``layers.l.coupling_b`` (R, H), ``layers.l.projection.weight``
    (H, in), ``layers.l.projection.bias`` (H,), and the entries of ``layers.l.norm``; those of the
    other direction are under ``reverse_layers``.

    Raises:
        ValueError: an argument is out of range, the input does not fit, or the strategy cannot
            serve it.
        TypeError: the input is neither a tensor nor a ``PackedSequence``.

    Example::

        >>> model = IRevRNN(input_size=10, hidden_size=64, num_layers=2)
        >>> output, (h_n, c_n) = model(torch.randn(8, 100, 10))
        >>> output.shape, h_n.shape
        (torch.Size([8, 100, 64]), torch.Size([2, 8, 64]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        num_couplings: int = 3,
        activation: str = "relu",
        coupling_activation: str = "tanh",
        bias: bool = True,
        batch_first: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        norm: str | None = None,
        residual: bool = False,
        memory: str = "recompute",
        device: Any = None,
        dtype: torch.dtype | None = None,
        memory_budget: int | str | None = None,
        longest_period: float | None = None,
        shortest_period: float = SHORTEST_PERIOD,
        longest_memory: float = LONGEST_MEMORY,
    ) -> None:
        super().__init__()
        lowest = LayerSpec(
            input_size=input_size,
            hidden_size=hidden_size,
            num_couplings=num_couplings,
            activation=activation,
            coupling_activation=coupling_activation,
            bias=bias,
            norm=norm,
            longest_period=longest_period,
            shortest_period=shortest_period,
            longest_memory=longest_memory,
        )
        check_count("num_layers", num_layers, 1)
        check_number("dropout", dropout)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1); got {dropout}")
        check_budget(memory, memory_budget)
        require(obstacle(memory, activation=activation, bidirectional=bidirectional))
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.num_couplings = num_couplings
        self.activation = activation
        self.coupling_activation = coupling_activation
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.norm = norm
        self.residual = residual
        self.memory = memory
        self.memory_budget = None if memory_budget is None else auto.parse_bytes(memory_budget)
        self.longest_period = longest_period
        self.shortest_period = shortest_period
        self.longest_memory = longest_memory
        self.picked: Plan | None = None

        inner = replace(lowest, input_size=(2 if bidirectional else 1) * hidden_size)
        specs = [lowest, *[inner] * (num_layers - 1)]
        self.layers = nn.ModuleList(IRevRNNLayer(spec, device, dtype) for spec in specs)
        self.reverse_layers: nn.ModuleList | tuple[()] = ()
        if bidirectional:
            self.reverse_layers = nn.ModuleList(IRevRNNLayer(spec, device, dtype) for spec in specs)

    def _stack(self) -> Stack:
        return Stack(
            cast("list[IRevRNNLayer]", list(self.layers)),
            cast("list[IRevRNNLayer]", list(self.reverse_layers)),
            self.activation,
            self.coupling_activation,
            self.residual,
            self.training and self.dropout > 0 and self.num_layers > 1,
        )

    def reset_parameters(self) -> None:
        """Draw all parameters anew and reset the statistics of ``norm="batch"``."""
        for layer in self._stack().all_layers:
            layer.reset_parameters()

    @torch.no_grad()
    def clip_recurrent_weights_(self, bound: float = 1.0) -> IRevRNN:
        """Clamp every recurrent weight to [-bound, bound], in place, after an optimizer step.

        IndRNN (Li et al., 2018) bounds abs(u) by ``gamma ** (1 / T)`` so that a state cannot grow
        more than ``gamma``-fold over T steps. ``optimizer.register_step_post_hook(lambda *_:
        model.clip_recurrent_weights_())`` does it without a change to the training loop.

        Args:
            bound: largest absolute value, at least 0.

        Returns:
            The module itself.
        """
        if not bound >= 0:
            raise ValueError(f"bound must be at least 0; got {bound}")
        for layer in self._stack().all_layers:
            layer.recurrent_weight.clamp_(-bound, bound)
        return self

    def forward(
        self,
        input: Tensor | PackedSequence,
        hidden: States | None = None,
        *,
        lengths: Tensor | Sequence[int] | None = None,
        return_sequence: bool = True,
    ) -> tuple[Tensor | PackedSequence, States]:
        """Run the stack over a sequence; see the class for shapes."""
        if torch.compiler.is_compiling():
            packed = lengths is not None or isinstance(input, PackedSequence)
            if reason := not_a_graph(self.memory, packed):
                if torch.compiler.is_exporting():
                    raise ValueError(f"this forward pass cannot be exported: {reason}")
                return self._uncompiled(
                    input, hidden, lengths=lengths, return_sequence=return_sequence
                )
        stack, batch = self._stack(), self._batch(input, lengths)
        weight, count = stack.layers[0].recurrent_weight, len(stack.all_layers)
        symbols = "num_layers * 2" if self.bidirectional else "num_layers"
        h_0, c_0 = batch.initial_states(hidden, count, weight, symbols)
        masks = self._dropout_masks(stack, batch)
        memory, chunk = self._choose(stack, _workload(batch, hidden is None, return_sequence))
        arguments = (stack, memory, batch.x, h_0, c_0, masks, batch.packing, return_sequence)
        if memory in OF_THE_STACK:
            results = run_chunkwise(*arguments, chunk)
        else:
            results = run_layerwise(*arguments)
        warn_of_large_states(self, stack, *results[1:])
        return batch.restore(*results, return_sequence)

    @torch.compiler.disable(
        reason="memory='store' and 'recompute' can be compiled, with sequences of one length"
    )
    def _uncompiled(self, *inputs: Any, **options: Any) -> Any:
        return self.forward(*inputs, **options)

    def memory_report(
        self,
        input: Tensor | PackedSequence,
        *,
        lengths: Tensor | Sequence[int] | None = None,
        return_sequence: bool = True,
    ) -> None:
        """Print the bytes that each strategy would save, and its peak, to train on ``input``.

        Nothing is run: the figures follow from the sizes and the recurrent weights
        (:mod:`irevrnn.strategies.saved_bytes`). ``saved`` is an upper bound for sequences of
        different length and for ``reversible``; ``peak of a step`` is an estimate.

        Args:
            input, lengths, return_sequence: as for :meth:`forward`.
        """
        batch = self._batch(input, lengths)
        print(f"IRevRNN({self.extra_repr()})")
        print(f"input of {batch.steps} steps and batch {batch.size}, {return_sequence=}\n")
        print(auto.table(self._stack(), _workload(batch, True, return_sequence)))

    def _batch(
        self, input: Tensor | PackedSequence, lengths: Tensor | Sequence[int] | None
    ) -> SequenceBatch:
        weight = cast(IRevRNNLayer, self.layers[0]).projection.weight
        return SequenceBatch.of(input, lengths, self.batch_first, weight)

    def _choose(self, stack: Stack, load: Workload) -> tuple[str, int]:
        """Return the strategy to run and its chunk length, which ``auto`` picks."""
        memory = check_strategy(self.memory)
        if memory == "auto":
            check_budget(memory, self.memory_budget)
            return self._pick(stack, load)
        packed, bidirectional = load.packed, self.bidirectional
        require(
            obstacle(memory, activation=self.activation, bidirectional=bidirectional, packed=packed)
        )
        if memory in OF_THE_STACK:
            return memory, chunk_length(memory, load.steps, load.batch, self.hidden_size)
        return memory, 0

    def _pick(self, stack: Stack, load: Workload) -> tuple[str, int]:
        before = self.picked and self.picked.memory
        self.picked = auto.choose(stack, load, auto.parse_bytes(cast(int, self.memory_budget)))
        if self.picked.memory != before:
            _log.info("memory='auto' picked %s", auto.describe(self.picked, load))
        return self.picked.memory, self.picked.chunk

    def _dropout_masks(self, stack: Stack, batch: SequenceBatch) -> Tensor | None:
        """Draw one mask for all steps, for each border between layers: (L - 1, B, D * H)."""
        if not (self.training and self.dropout > 0):
            return None
        shape = (self.num_layers - 1, batch.size, stack.directions * self.hidden_size)
        return F.dropout(stack.layers[0].recurrent_weight.new_ones(shape), self.dropout)

    def extra_repr(self) -> str:
        """Return the arguments that differ from their defaults."""
        return describe_arguments(self, IRevRNN.__init__)


def _workload(batch: SequenceBatch, own_states: bool, return_sequence: bool) -> Workload:
    copied, packed = not batch.x.is_contiguous(), batch.packing is not None
    return Workload(batch.steps, batch.size, copied, return_sequence, own_states, packed)
