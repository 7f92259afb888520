"""The layer: :class:`IRevRNN`, used like ``nn.LSTM``."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from irevrnn.activations import get_activation
from irevrnn.projection import Projection
from irevrnn.sequences import Batch
from irevrnn.strategies import auto as budget
from irevrnn.strategies.chunkwise import Stack, chunk_length, run_chunked
from irevrnn.strategies.compiling import opaque
from irevrnn.strategies.fixed_scan import check_invertible
from irevrnn.strategies.layerwise import run_whole
from irevrnn.strategies.rules import IN_FIXED_POINT, OF_THE_STACK, check_strategy

_log = logging.getLogger("irevrnn")

#: Shortest time constant, in steps, of freshly drawn recurrent weights.
SHORTEST_MEMORY = 1.0
#: The longest, unless another is asked for.
LONGEST_MEMORY = 1000.0
#: Deviation of freshly drawn coupling weights.
COUPLING_DEVIATION = 1e-3
#: Shortest period, in steps, of units that start as oscillators, unless another is asked for.
SHORTEST_PERIOD = 6.0


class IRevRNNLayer(nn.Module):
    """One layer of :class:`IRevRNN`: projection, normalisation and recurrence.

    Attributes:
        projection: ``nn.Linear(input_size, hidden_size)``, the only place where units mix.
        norm: ``nn.LayerNorm``, ``nn.BatchNorm1d`` or ``nn.Identity``, applied to the input drive z.
        recurrent_weight: u, (H,).
        coupling_a, coupling_b: (R, H).
    """

    projection: Projection
    norm: nn.Module
    recurrent_weight: nn.Parameter
    coupling_a: nn.Parameter
    coupling_b: nn.Parameter

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_couplings: int,
        bias: bool,
        norm: str | None,
        device: Any = None,
        dtype: torch.dtype | None = None,
        longest_period: float | None = None,
        shortest_period: float = SHORTEST_PERIOD,
        longest_memory: float = LONGEST_MEMORY,
    ) -> None:
        super().__init__()
        factory = {"device": device, "dtype": dtype}
        self.longest_memory = longest_memory
        self.longest_period, self.shortest_period = longest_period, shortest_period
        self.projection = Projection(input_size, hidden_size, bias=bias, **factory)
        self.norm = _make_norm(norm, hidden_size, factory)
        self.recurrent_weight = nn.Parameter(torch.empty(hidden_size, **factory))
        self.coupling_a = nn.Parameter(torch.empty(num_couplings, hidden_size, **factory))
        self.coupling_b = nn.Parameter(torch.empty(num_couplings, hidden_size, **factory))
        self.reset_recurrence()

    def reset_parameters(self) -> None:
        """Draw all parameters afresh and reset the statistics of ``norm="batch"``."""
        self.projection.reset_parameters()
        if isinstance(self.norm, nn.LayerNorm | nn.BatchNorm1d):
            self.norm.reset_parameters()
        self.reset_recurrence()

    def reset_recurrence(self, shortest: float = SHORTEST_MEMORY) -> None:
        """Draw couplings, and u = exp(-1/tau), tau log-uniform up to ``longest_memory``.

        A norm's weight starts at sqrt(1 - u^2): so all states are of one size, whatever their
        memory, and the next layer does not see those with the longest alone (as in the LRU of
        Orvieto et al., 2023).
        """
        with torch.no_grad():
            u = self.recurrent_weight
            u.copy_(torch.exp(-1 / _log_uniform_(u, shortest, self.longest_memory)))
            if isinstance(self.norm, nn.LayerNorm | nn.BatchNorm1d):
                self.norm.weight.copy_((1 - u * u).sqrt())
            self.coupling_a.normal_(0, COUPLING_DEVIATION)
            self.coupling_b.normal_(0, COUPLING_DEVIATION)
            if self.longest_period is not None:
                self._oscillate(self.shortest_period, self.longest_period)

    def _oscillate(self, shortest: float, longest: float) -> None:
        """Let the first coupling turn the state, the more slowly the longer the period drawn."""
        periods = _log_uniform_(self.coupling_a[0], shortest, longest)
        self.coupling_a[0] = 2 * torch.sin(math.pi / periods)  # paper, eq:period
        self.coupling_b[0] = -self.coupling_a[0]

    def forward(self, x: Tensor) -> Tensor:
        """Project and normalise the input (..., in) to the input drive z (..., H).

        The recurrence over z belongs to the stack, which decides what of it is saved.
        """
        # Under autocast, what sums over steps stays in full precision: the norm and the state.
        z = self.projection(x).to(self.recurrent_weight.dtype)
        if isinstance(self.norm, nn.BatchNorm1d):  # statistics over time and batch, one per unit
            return self.norm(z.flatten(0, -2)).view_as(z)
        return self.norm(z)


def _log_uniform_(x: Tensor, lowest: float, highest: float) -> Tensor:
    return x.uniform_(math.log(lowest), math.log(highest)).exp_()


def _make_norm(norm: str | None, size: int, factory: dict[str, Any]) -> nn.Module:
    if norm is None:
        return nn.Identity()
    if norm == "layer":
        return nn.LayerNorm(size, **factory)
    if norm == "batch":
        return nn.BatchNorm1d(size, **factory)
    raise ValueError(f"norm must be None, 'layer' or 'batch'; got {norm!r}")


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
        norm: normalisation of the input drive: ``None``, ``"layer"``, or ``"batch"`` (statistics
            over all steps and the batch).
        residual: add a layer's input to its output where the two have the same size.
        memory: what is saved for the backward pass, see :mod:`irevrnn.strategies.rules`.
        device, dtype: of the parameters.
        memory_budget: for ``memory="auto"``: bytes, or text such as ``"256MB"``, that a forward and
            backward pass may need beyond input, output, parameters and their gradients. The fastest
            strategy that is expected to keep within it runs; which one, is logged (logger
            ``irevrnn``) when it changes, and is the attribute ``picked``.
        longest_period: if given, the first coupling starts with weights a = -b that make each unit
            an oscillator (for small states and a coupling nonlinearity of slope 1 at 0, as tanh's),
            of a period drawn log-uniformly from ``shortest_period`` to so many steps. ``None``
            starts all couplings near 0. It needs ``num_couplings`` of at least 1; ``relu`` and
            ``leaky_relu`` as activation damp what is negative, and so most of the oscillation.
        shortest_period: of the periods drawn where ``longest_period`` is given, above 2 steps. Near
            2, single steps can be told apart for as long as units remember.
        longest_memory: units start with recurrent weights u = exp(-1 / tau), the time constants tau
            drawn log-uniformly from 1 to so many steps; one that oscillates remembers for 2 tau.

    Inputs:
        - **input**: (batch, seq, input_size) with ``batch_first``, else (seq, batch, input_size),
          or (seq, input_size) without a batch; or a ``PackedSequence``, sorted by length or not.
        - **hidden**: ``(h_0, c_0)``, each (num_layers, batch, hidden_size), or without the batch
          dimension for unbatched input; with 2 * num_layers, a layer's directions behind one
          another, if bidirectional. Zeros if not given.
        - **lengths** (keyword): (batch,) integers, the lengths of padded sequences. What lies
          beyond a sequence's end is neither read nor computed; its output is 0.
        - **return_sequence** (keyword): whether ``output`` holds all steps or the last one alone.

    Outputs:
        - **output**: h of the last layer, (batch, seq, hidden_size) with ``batch_first``, else
          (seq, batch, hidden_size), or packed like the input; (batch, hidden_size), the last step
          of each sequence, if ``return_sequence=False``. With ``residual``, the input of the last
          layer is added. If bidirectional, twice as many features.
        - **(h_n, c_n)**: final states of all layers, in the shape of ``hidden``.

    Fed in pieces, each with the states of the one before, a sequence gives what it gives at once,
    to the rounding of matrix products; with ``reversible`` to its fixed-point noise, below 2^-19 a
    step, since a piece begins with empty bit stacks.

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
        check_count("input_size", input_size, 1)
        check_count("hidden_size", hidden_size, 1)
        check_count("num_layers", num_layers, 1)
        check_count("num_couplings", num_couplings, 0)
        get_activation(activation)
        get_activation(coupling_activation, "coupling_activation")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1); got {dropout}")
        check_periods(shortest_period, longest_period, num_couplings)
        check_memory(longest_memory)
        if reason := budget.one_way(memory, False, bidirectional):
            raise ValueError(reason)
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
        self.longest_period, self.shortest_period = longest_period, shortest_period
        self.longest_memory = longest_memory
        self.memory = check_strategy(memory)
        self.memory_budget = _check_budget(memory, memory_budget)
        self.picked: budget.Plan | None = None
        if memory in IN_FIXED_POINT:
            check_invertible(activation)

        def make_layers() -> nn.ModuleList:
            inner = self._directions() * hidden_size
            return nn.ModuleList(
                IRevRNNLayer(
                    input_size if index == 0 else inner,
                    hidden_size, num_couplings, bias, norm, device, dtype,
                    longest_period, shortest_period, longest_memory,
                )
                for index in range(num_layers)
            )  # fmt: skip

        self.layers = make_layers()
        self.reverse_layers: nn.ModuleList | tuple[()] = make_layers() if bidirectional else ()

    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    def _stack(self) -> list[IRevRNNLayer]:
        return cast("list[IRevRNNLayer]", list(self.layers))

    def _all_layers(self) -> list[IRevRNNLayer]:
        return cast("list[IRevRNNLayer]", [*self.layers, *self.reverse_layers])

    def reset_parameters(self) -> None:
        """Draw all parameters afresh and reset the statistics of ``norm="batch"``."""
        for layer in self._all_layers():
            layer.reset_parameters()

    @torch.no_grad()
    def clip_recurrent_weights_(self, bound: float = 1.0) -> IRevRNN:
        """Clamp every recurrent weight to [-bound, bound], in place, after an optimizer step.

        IndRNN (Li et al., 2018) bounds abs(u) by ``gamma ** (1 / T)`` so that a state cannot grow
        more than ``gamma``-fold over T steps. ``optimizer.register_step_post_hook(lambda *_:
        model.clip_recurrent_weights_())`` does it without touching the training loop.

        Args:
            bound: largest absolute value, at least 0.

        Returns:
            The module itself.
        """
        if not bound >= 0:
            raise ValueError(f"bound must be at least 0; got {bound}")
        for layer in self._all_layers():
            layer.recurrent_weight.clamp_(-bound, bound)
        return self

    def forward(
        self,
        input: Tensor | PackedSequence,
        hidden: tuple[Tensor, Tensor] | None = None,
        *,
        lengths: Tensor | Sequence[int] | None = None,
        return_sequence: bool = True,
    ) -> tuple[Tensor | PackedSequence, tuple[Tensor, Tensor]]:
        """Run the stack over a sequence; see the class for shapes."""
        if torch.compiler.is_compiling():
            packed = lengths is not None or isinstance(input, PackedSequence)
            if reason := opaque(self.memory, packed):
                if torch.compiler.is_exporting():
                    raise ValueError(f"this forward pass cannot be exported: {reason}")
                return self._uncompiled(
                    input, hidden, lengths=lengths, return_sequence=return_sequence
                )
        self._check_input(input, lengths)
        batch = Batch.of(input, lengths, self.batch_first)
        h_0, c_0 = self._initial_states(batch, hidden)
        masks = self._dropout_masks(batch)
        strategy, chunk = self._strategy(self._task(batch, hidden is None, return_sequence))
        stack = Stack(
            self._stack(), self.activation, self.coupling_activation, self.residual,
            return_sequence, strategy, chunk, list(self.reverse_layers),
        )  # fmt: skip
        if strategy in OF_THE_STACK:
            results = run_chunked(stack, batch.x, h_0, c_0, masks, batch.batch_sizes)
        else:
            results = run_whole(stack, batch.x, h_0, c_0, masks, batch.packing)
        return batch.give_back(*results, return_sequence)

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
        """Print what each strategy would hold, and need at its peak, to train on ``input``.

        Nothing is run: the figures follow from the sizes and the recurrent weights
        (:mod:`irevrnn.strategies.auto`). ``holds`` is what :func:`experiments.bench.measure.saved_bytes` counts, but an
        upper bound for sequences of different length and for ``reversible``; ``peak of a step`` is
        an estimate.

        Args:
            input, lengths, return_sequence: as for :meth:`forward`.
        """
        self._check_input(input, lengths)
        batch = Batch.of(input, lengths, self.batch_first)
        print(f"IRevRNN({self.extra_repr()})")
        print(f"input of {batch.steps} steps and batch {batch.size}, {return_sequence=}\n")
        print(budget.table(self, self._task(batch, True, return_sequence)))

    def _task(self, batch: Batch, own_states: bool, return_sequence: bool) -> budget.Task:
        copied, packed = not batch.x.is_contiguous(), batch.packing is not None
        return budget.Task(batch.steps, batch.size, copied, return_sequence, own_states, packed)

    def _strategy(self, task: budget.Task) -> tuple[str, int]:
        """The strategy to run and its chunk length, which ``auto`` picks."""
        if self.memory == "auto":
            return self._pick(task)
        if reason := budget.one_way(self.memory, task.packed, self.bidirectional):
            raise ValueError(reason)
        if self.memory in OF_THE_STACK:
            return self.memory, chunk_length(self.memory, task.steps, task.batch, self.hidden_size)
        return self.memory, 0

    def _pick(self, task: budget.Task) -> tuple[str, int]:
        assert self.memory_budget is not None
        before = self.picked and self.picked.strategy
        self.picked = budget.choose(self, task, self.memory_budget)
        if self.picked.strategy != before:
            _log.warning("memory='auto' picked %s", budget.describe(self.picked, task))
        return self.picked.strategy, self.picked.chunk

    def _dropout_masks(self, batch: Batch) -> Tensor | None:
        """One mask for all steps, for each border between layers: (L - 1, B, D * H)."""
        if not (self.training and self.dropout > 0):
            return None
        shape = (self.num_layers - 1, batch.size, self._directions() * self.hidden_size)
        return F.dropout(self._stack()[0].recurrent_weight.new_ones(shape), self.dropout)

    def _initial_states(
        self, batch: Batch, hidden: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor]:
        layers = self.num_layers * self._directions()
        shape = (layers, batch.size, self.hidden_size)
        weight = self._stack()[0].recurrent_weight
        if hidden is None:
            zeros = weight.new_zeros(shape)
            return zeros, zeros
        if not (isinstance(hidden, tuple | list) and len(hidden) == 2):
            raise TypeError(f"hidden must be a pair (h_0, c_0); got {type(hidden).__name__}")
        wanted = shape if batch.batched else (shape[0], shape[2])
        symbols = "num_layers * 2" if self.bidirectional else "num_layers"
        for name, state in zip(("h_0", "c_0"), hidden, strict=True):
            if not isinstance(state, Tensor):
                raise TypeError(f"{name} must be a torch.Tensor; got {type(state).__name__}")
            if tuple(state.shape) != wanted:
                raise ValueError(
                    f"{name} must have shape {wanted} = ({symbols}, "
                    f"{'batch, ' if batch.batched else ''}hidden_size); got {tuple(state.shape)}"
                )
        h_0, c_0 = (batch.sort_states(state.to(weight.dtype).reshape(shape)) for state in hidden)
        return h_0, c_0

    def _check_input(self, input: Tensor | PackedSequence, lengths: object) -> None:
        if isinstance(input, PackedSequence):
            if lengths is not None:
                raise ValueError("lengths go with padded input; a PackedSequence has its own")
            self._check_values(input.data)
            return
        if not isinstance(input, Tensor):
            raise TypeError(
                f"input must be a torch.Tensor or PackedSequence; got {type(input).__name__}"
            )
        layout = "(batch, seq, feature)" if self.batch_first else "(seq, batch, feature)"
        if input.dim() not in (2, 3):
            raise ValueError(
                f"input must be {layout} or (seq, feature); got shape {tuple(input.shape)}"
            )
        self._check_values(input)
        steps = input.shape[1 if self.batch_first and input.dim() == 3 else 0]
        if steps == 0:
            raise ValueError(f"input must have at least one step; got shape {tuple(input.shape)}")

    def _check_values(self, input: Tensor) -> None:
        if input.shape[-1] != self.input_size:
            raise ValueError(
                f"input must have input_size = {self.input_size} features in its last dimension; "
                f"got shape {tuple(input.shape)}"
            )
        weight = self._stack()[0].projection.weight
        if input.device != weight.device:
            raise ValueError(
                f"input must be on the device of the parameters, {weight.device}; "
                f"got {input.device}"
            )
        if input.dtype != weight.dtype and not torch.is_autocast_enabled(input.device.type):
            raise ValueError(
                f"input must have the dtype of the parameters, {weight.dtype}; got {input.dtype}"
            )

    def extra_repr(self) -> str:
        """The arguments that differ from their defaults."""
        defaults = {
            "num_layers": 1, "num_couplings": 3, "activation": "relu",
            "coupling_activation": "tanh", "bias": True, "batch_first": True, "dropout": 0.0,
            "bidirectional": False,
            "norm": None, "residual": False, "memory": "recompute", "memory_budget": None,
            "longest_period": None, "shortest_period": SHORTEST_PERIOD,
            "longest_memory": LONGEST_MEMORY,
        }  # fmt: skip
        shown = [f"{self.input_size}, {self.hidden_size}"]
        shown += [
            f"{name}={getattr(self, name)!r}"
            for name, default in defaults.items()
            if getattr(self, name) != default
        ]
        return ", ".join(shown)


def _check_budget(memory: str, memory_budget: int | str | None) -> int | None:
    if memory == "auto" and memory_budget is None:
        raise ValueError("memory='auto' needs memory_budget, such as memory_budget='256MB'")
    if memory != "auto" and memory_budget is not None:
        raise ValueError(f"memory_budget goes with memory='auto' alone; got memory={memory!r}")
    return None if memory_budget is None else budget.bytes_of(memory_budget)


def check_periods(shortest: float, longest: float | None, num_couplings: int) -> None:
    """Raise an error if units cannot start with periods from ``shortest`` to ``longest``."""
    _check_number("shortest_period", shortest)
    if not 2 < shortest < math.inf:
        raise ValueError(f"shortest_period must be above 2 steps; got {shortest}")
    if longest is None:
        return
    _check_number("longest_period", longest)
    if not shortest <= longest < math.inf:
        raise ValueError(
            f"longest_period must be at least shortest_period, {shortest:g} steps; got {longest}"
        )
    if num_couplings == 0:
        raise ValueError("longest_period needs num_couplings of at least 1; got 0")


def check_memory(longest: float) -> None:
    """Raise an error if no unit can start with a time constant of ``longest`` steps."""
    _check_number("longest_memory", longest)
    if not SHORTEST_MEMORY <= longest < math.inf:
        raise ValueError(f"longest_memory must be at least {SHORTEST_MEMORY:g} step; got {longest}")


def _check_number(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number; got {type(value).__name__}")


def check_count(name: str, value: int, least: int) -> None:
    """Raise an error that names the argument if ``value`` is no whole number from ``least`` on."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int; got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}; got {value}")
