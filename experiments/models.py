"""Sequence classifiers: a stack of gated blocks, and the plain and residual stack of layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from experiments.train.task import ReadAt
from irevrnn import IRevBlock, IRevRNN, IRevStack
from irevrnn.modules.initial_values import SHORTEST_MEMORY
from irevrnn.modules.layer import IRevRNNLayer
from irevrnn.recurrences.block import is_selective

#: Shortest time constant of the last layer, as a share of the longest, where only its last output
#: is read: units with short memory would know nothing of the sequence there.
READOUT_SHARE = 1 / 20
#: About how many steps of a sequence tell how much the embedding passes on.
EMBEDDED_STEPS = 1000
#: Parts of the last layer's output that can be read: its last step, or the mean of all steps.
READS = ("last", "mean")


class SequenceClassifier(nn.Module):
    """A stack of IRevRNN layers with a readout.

    Args:
        dropout: probability of dropping a unit after a layer, the last one included.
        read: "last" to read the last layer's output after the last step; "mean", its mean over
            time.
        read_at: where to read it, with ``read="last"``. The stack runs from one such step to the
            next with the states handed on, so that gradients flow through the sequence and only the
            outputs that are read exist; dropout between layers is drawn anew for each piece.
        options: passed on to :class:`IRevRNN` (``residual``, ``num_couplings``, ``memory``, ...).

    Shape:
        - input: (batch, seq, input_size)
        - lengths: (batch,) int64, steps of each sequence, if some are padded at their end
        - output: logits, (batch, num_classes); with ``read_at`` (batch, len(read_at), num_classes)
    """

    def __init__(
        self,
        input_size: int,
        num_classes: int,
        hidden_size: int = 128,
        num_layers: int = 6,
        *,
        norm: str | None = "batch",
        dropout: float = 0.0,
        read: str = "last",
        read_at: ReadAt | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.read, self.read_at = read, read_at
        self.rnn = IRevRNN(
            input_size, hidden_size, num_layers,
            norm=norm, dropout=dropout if num_layers > 1 else 0.0, **options,
        )  # fmt: skip
        if read == "last":
            layer = cast(IRevRNNLayer, self.rnn.layers[-1])
            layer.reset_recurrence(max(SHORTEST_MEMORY, READOUT_SHARE * layer.longest_memory))
        self.norm = nn.BatchNorm1d(hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.readout = nn.Linear(hidden_size, num_classes)

    def forward(self, input: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Classify each sequence."""
        if self.read_at is not None:
            output = outputs_at(self.rnn, input, self.read_at)
            read = self.dropout(self.norm(output.flatten(0, 1)))
            return self.readout(read).unflatten(0, output.shape[:2])
        output, _ = self.rnn(input, lengths=lengths, return_sequence=self.read == "mean")
        if self.read == "mean":
            output = mean_over_time(output, lengths)
        return self.readout(self.dropout(self.norm(output)))


class BlockClassifier(nn.Module):
    """An embedding and gated blocks in one reversible stack, with a readout.

    Args:
        width: features between the blocks.
        hidden_size: units of each block's recurrence.
        num_layers: blocks.
        tokens: whether the input is int64 tokens, (batch, seq), below ``input_size``.
        kernel_size: steps that the embedding sees, this one and those before it: above 1 it is a
            causal convolution with a SiLU, such as Mamba has (Gu and Dao, 2023).
        norm: of every block, but of the first only with ``norm_first``: of a single feature's
            embedding it would leave nothing but the sign.
        norm_last: whether what is read has a norm: a batch norm, or with ``read_at`` a layer norm.
        sparsity: if given, the embedding ends in a ReLU and blocks have no biases, so that steps
            which mean nothing can add nothing to a state, however many they are. (The number is
            the weight of a penalty, :func:`embedding_l1`.)
        read, read_at: as for :class:`SequenceClassifier`.
        gradient_steps: steps before the first of several answers that gradients go back through
            (truncated backpropagation through time), below 1 as a share of these steps; None goes
            through all.
        block: makes a block from width and units, as :class:`IRevBlock` does.
        memory, memory_budget: of :class:`IRevStack`.
        options: passed on to ``block`` (``forgets``, ``dropout``, ...).

    Shape: as for :class:`SequenceClassifier`.
    """

    def __init__(
        self,
        input_size: int,
        num_classes: int,
        hidden_size: int = 64,
        num_layers: int = 4,
        *,
        width: int = 64,
        norm: str | None = "layer",
        norm_first: bool = False,
        norm_last: bool = False,
        sparsity: float | None = None,
        tokens: bool = False,
        kernel_size: int = 1,
        read: str = "mean",
        read_at: ReadAt | None = None,
        gradient_steps: float | None = None,
        block: Callable[..., nn.Module] = IRevBlock,
        memory: str = "reversible",
        memory_budget: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.read, self.read_at, self.gradient_steps = read, read_at, gradient_steps
        self.num_layers = num_layers
        sparse = sparsity is not None
        norms = [norm if norm_first else None, *[norm] * (num_layers - 1)]
        blocks = [
            block(width, hidden_size, norm=each, bias=not sparse, **options) for each in norms
        ]
        self.kernel_size = kernel_size
        embedding = _embedding(input_size, width, kernel_size, tokens)
        if sparse:
            embedding.append(nn.ReLU())
        self.rnn = IRevStack([*embedding, *blocks], memory, memory_budget)
        self.readout: nn.Module = nn.Linear(width, num_classes)
        if norm_last:
            last = _BatchNorm if read_at is None else nn.LayerNorm
            self.readout = nn.Sequential(last(width), self.readout)
        self.chooses_decays = options.get("forgets") == "input"
        self.stored_bits: list[Tensor] = []
        self.steps = 0.0

    def forward(self, input: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Classify each sequence."""
        self.stored_bits, self.steps = [], float(input.shape[1])
        input = windows(input, self.kernel_size)
        if self.read_at is not None:
            output = outputs_at(self._run, input, self.read_at, self.gradient_steps)
        else:
            output, _ = self._run(input, lengths=lengths, return_sequence=self.read == "mean")
            if lengths is not None:
                self.steps = lengths.double().mean().item()
            output = mean_over_time(output, lengths) if self.read == "mean" else output
        return self.readout(output)

    def _run(self, *arguments: Any, **options: Any) -> tuple[Tensor, Any]:
        """Run the stack over some steps, and keep the bits that the input chose to forget."""
        result: tuple[Tensor, Any] = self.rnn(*arguments, **options)
        if self.chooses_decays:
            self.stored_bits.append(self.rnn.stored_bits())
        return result


class _BatchNorm(nn.BatchNorm1d):
    """Batch norm that takes its running statistics where a batch has a single sequence."""

    def forward(self, input: Tensor) -> Tensor:
        if len(input) > 1:
            return super().forward(input)
        statistics = self.running_mean, self.running_var
        return nn.functional.batch_norm(input, *statistics, self.weight, self.bias, eps=self.eps)


class _TokenWindows(nn.Module):
    """The embeddings of several tokens one behind the other, (..., k) to (..., k * width)."""

    def __init__(self, input_size: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(input_size, width)

    def forward(self, input: Tensor) -> Tensor:
        return self.embedding(input.long()).flatten(-2)


def _embedding(input_size: int, width: int, kernel_size: int, tokens: bool) -> list[nn.Module]:
    if kernel_size == 1:
        return [(nn.Embedding if tokens else nn.Linear)(input_size, width)]
    features = kernel_size * (width if tokens else input_size)
    first = [_TokenWindows(input_size, width)] if tokens else []
    return [*first, nn.Linear(features, width), nn.SiLU()]


def windows(input: Tensor, steps: int) -> Tensor:
    """Return each step behind those before it, (batch, seq, steps * features).

    Steps before the first are 0. A token, of (batch, seq), becomes one feature, in floating point.
    """
    if steps == 1:
        return input
    features = input if input.dim() == 3 else input.unsqueeze(2).float()
    padded = nn.functional.pad(features, (0, 0, steps - 1, 0))
    return padded.unfold(1, steps, 1).movedim(-1, 2).flatten(2)


def embedding_l1(network: nn.Module, input: Tensor) -> Tensor:
    """Return the mean absolute output of a network's embedding, over some of the steps.

    Some are enough: the graph of all would grow with the length.
    """
    assert isinstance(network, BlockClassifier)
    embedding = nn.Sequential(*list(network.rnn.blocks)[: -network.num_layers])
    seen = windows(input, network.kernel_size)
    output: Tensor = embedding(seen[:, :: max(1, input.shape[1] // EMBEDDED_STEPS)])
    return output.abs().mean()


def forgotten_bits(network: nn.Module) -> Tensor | None:
    """Return the mean of -log2 abs(u) over all units: bits that a unit forgets in a step.

    Where g is the identity, reversal cannot store less. A unit whose state turns forgets of h and
    of c. Where the input chooses decays, return what reversal stores of the last sequences, or None
    if there were none. None for the networks that we compare with.
    """
    blocks = [m for m in network.modules() if hasattr(m, "recurrent_weight")]
    if not blocks:
        return None
    if isinstance(network, BlockClassifier) and network.chooses_decays:
        if not network.stored_bits:
            return None
        units = sum(cast(int, block.hidden_size) for block in blocks)
        return torch.stack(network.stored_bits).sum() / (network.steps * units)
    weights: list[Any] = [m.recurrent_weight for m in blocks for _ in range(1 + is_selective(m))]
    # No more than 16, or a weight of 0 would be all that counts.
    bits = -torch.cat(weights).abs().clamp(min=2**-16).log2()
    return bits.sum() / sum(len(cast(Tensor, m.recurrent_weight)) for m in blocks)


def mean_over_time(output: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the mean of (batch, seq, hidden) over the steps of each sequence, without padding."""
    if lengths is None:
        # A sum's gradient is the same number for each step, which autograd need not write out.
        return output.sum(1) / output.shape[1]
    steps = torch.arange(output.shape[1], device=output.device)
    lengths = lengths.to(output.device).unsqueeze(1)
    return (output * (steps < lengths).unsqueeze(2)).sum(1) / lengths


def outputs_at(
    rnn: Callable[..., tuple[Tensor, Any]], input: Tensor, read_at: ReadAt,
    gradient_steps: float | None = None,
) -> Tensor:  # fmt: skip
    """Return the last layer's output where it is read, (batch, answers, hidden)."""
    outputs, hidden, count = [], None, input.shape[1]
    first = 1 + read_at.indices(count)[0] if isinstance(read_at, slice) else read_at[0]
    if gradient_steps is None:
        gradient_steps = first
    steps = gradient_steps * first if gradient_steps < 1 else gradient_steps
    begin = max(0, first - max(1, int(steps)))
    if begin:
        with torch.no_grad():
            _, hidden = rnn(input[:, :begin], return_sequence=False)
    if isinstance(read_at, slice):
        if begin < first - 1:
            _, hidden = rnn(input[:, begin : first - 1], hidden, return_sequence=False)
        output, _ = rnn(input[:, first - 1 :], hidden)
        return output
    for start, end in zip((begin, *read_at), read_at, strict=False):
        last, hidden = rnn(input[:, start:end], hidden, return_sequence=False)
        outputs.append(last)
    return torch.stack(outputs, dim=1)
