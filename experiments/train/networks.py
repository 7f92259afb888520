"""The networks that can be trained: the options of each, and how it is built from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, Literal, NamedTuple

from torch import nn

from experiments.models import READS, BlockClassifier, SequenceClassifier
from experiments.peers import linoss, lru, resnet, selective
from experiments.peers.classifier import PeerClassifier, gates_of
from experiments.peers.layers import gated_block
from experiments.train.options import Options, option, with_default
from experiments.train.task import ReadAt, Task
from irevrnn.kernels.activations import ACTIVATIONS
from irevrnn.modules.initial_values import LONGEST_MEMORY, LONGEST_PERIOD, SHORTEST_PERIOD
from irevrnn.strategies.rules import STRATEGIES

_NORMS = ("batch", "layer", "none")


class Sizes(NamedTuple):
    """All of a task that its network depends on."""

    input_size: int
    num_classes: int
    read_at: ReadAt | None = None
    tokens: bool = False


class Network(Options):
    """A network of several layers with a readout."""

    #: What is built, from the features of a step, the number of classes and the options.
    classifier: ClassVar[Callable[..., nn.Module]]
    #: Ends of the names of the parameters that ``recurrent_lr_scale`` is for.
    recurrent: ClassVar[tuple[str, ...]] = ()

    # fmt: off
    hidden_size: int = option(128, "units per layer", least=1)
    num_layers: int = option(6, "layers", least=1)
    dropout: float = option(0.0, "probability of dropping a unit after a layer", least=0, below=1)
    read: str = option("last", "classify the last layer's output after the last step, or its mean "
                       "over time", choices=READS)
    # fmt: on

    @property
    def name(self) -> str:
        """The key in :data:`NETWORKS`."""
        return type(self).__name__.lower()

    def build(self, task: Task | Sizes) -> nn.Module:
        """Build the network for the sequences of a task; ValueError if options do not fit."""
        fields = [one for one in dataclasses.fields(self) if "training" not in one.metadata]
        given = {field.name: getattr(self, field.name) for field in fields}
        options = {name: None if value == "none" else value for name, value in given.items()}
        sizes = task.input_size, task.num_classes
        if task.tokens:  # which only blocks can embed
            options["tokens"] = True
        return type(self).classifier(*sizes, read_at=task.read_at, **options)


def _rate(of: str) -> Any:
    return option(0.1, f"factor on the learning rate of {of}", least=0, training=True)


# --- ours ---------------------------------------------------------------------------------------


class Reversible(Network):
    """The options that plain layers and gated blocks have in common."""

    recurrent = ("recurrent_weight",)
    # fmt: off
    num_couplings: int = option(3, "couplings per unit", least=0)
    activation: str = option("relu", "output nonlinearity", choices=ACTIVATIONS)
    norm: str = option("batch", "normalisation of the input projection", choices=_NORMS)
    longest_period: float | None = option(
        None, "longest period, in steps, with which units oscillate at the start; None starts the "
        "couplings near 0")
    shortest_period: float = option(
        SHORTEST_PERIOD, "shortest of these periods, in steps, above 2")
    longest_memory: float = option(
        LONGEST_MEMORY, "longest time constant, in steps, at the start")
    memory: str = option("recompute", "what is saved for the backward pass", choices=STRATEGIES)
    memory_budget: str | None = option(
        None, "memory that a step may need, such as 256MB, for --memory auto, checkpoint and "
        "reversible")
    bits_penalty: float = option(
        0.0, "weight of the bits that a unit forgets in a step, added to the loss", least=0,
        training=True)
    recurrent_lr_scale: float = _rate(
        "recurrent weights, as a step must not jump over a weight close to 1, a long memory")
    coupling_lr_scale: float = _rate("couplings")
    # fmt: on


class IRevRNN(Reversible):
    """Plain layers of IRevRNN."""

    classifier = SequenceClassifier
    residual: bool = option(False, "add a layer's input to its output")


class Block(Reversible):
    """Gated blocks: all that is nonlinear is outside of the recurrence, which is reversed."""

    # fmt: off
    classifier = BlockClassifier
    hidden_size: int = with_default(Network, "hidden_size", 64)
    num_layers: int = with_default(Network, "num_layers", 4)
    read: str = with_default(Network, "read", "mean")
    num_couplings: int = with_default(Reversible, "num_couplings", 1)
    activation: str = with_default(Reversible, "activation", "identity")
    norm: str = with_default(Reversible, "norm", "layer")
    longest_period: float | None = with_default(Reversible, "longest_period", LONGEST_PERIOD)
    memory: str = with_default(Reversible, "memory", "reversible")
    width: int = option(64, "features between blocks", least=1)
    forgets: bool | Literal["input"] = option(
        True, "units forget; False for u = 1, input for decays that the input chooses",
        choices=(True, False, "input"))
    turns: str = option("fixed", "by which angles units turn", choices=("fixed", "input"))
    input_gate: bool = option(False, "the input chooses how much of it is read")
    norm_first: bool = option(False, "the first block has a norm, too")
    norm_last: bool = option(False, "what is read has a norm")
    kernel_size: int = option(1, "steps that the embedding sees: this one and those before it",
                              least=1)
    learn_initial_state: bool = option(False, "the states before the first step are learnt")
    gate_lr_scale: float = _rate("the gates by which the input chooses")
    gate: bool = option(True, "the output projection has a gate")
    coupling_activation: str = option("identity", "nonlinearity of the couplings",
                                      choices=ACTIVATIONS)
    sparsity: float | None = option(
        None, "weight of an L1 penalty on what the embedding passes on, added to the loss; the "
        "embedding then ends in a ReLU, and blocks have no biases, so that a step that means "
        "nothing adds nothing to a state of the first block", least=0)
    gradient_steps: float | None = option(
        None, "steps before the first of several answers that gradients go back through, below 1 "
        "as a share of them; None goes through all", least=0)
    # fmt: on


# --- the others ---------------------------------------------------------------------------------


def _gated(kind: type[nn.Module]) -> Callable[..., nn.Module]:
    """Put a recurrence into the blocks, the stack and the readout of ours."""
    return partial(BlockClassifier, block=partial(gated_block, kind), memory="recompute")


class LSTM(Network):
    """LSTM of PyTorch."""

    classifier = partial(PeerClassifier, partial(gates_of, nn.LSTM))
    forget_bias: float = option(1.0, "bias of the forget gate at the start")


class GRU(Network):
    """GRU of PyTorch."""

    classifier = partial(PeerClassifier, partial(gates_of, nn.GRU))


class Gated(Network):
    """A recurrence in gated blocks like ours."""

    hidden_size: int = with_default(Network, "hidden_size", 64)
    num_layers: int = with_default(Network, "num_layers", 4)
    read: str = with_default(Network, "read", "mean")
    norm: str = option("layer", "normalisation of a block's input", choices=_NORMS)
    width: int = with_default(Block, "width", 64)
    norm_first: bool = with_default(Block, "norm_first", False)
    norm_last: bool = with_default(Block, "norm_last", False)
    kernel_size: int = with_default(Block, "kernel_size", 1)
    sparsity: float | None = with_default(Block, "sparsity", None)
    gradient_steps: float | None = with_default(Block, "gradient_steps", None)


class Remembering(Gated):
    """A recurrence whose time constants start in a range."""

    shortest_memory: float = option(
        lru.SHORTEST_MEMORY, "shortest time constant, in steps, at the start"
    )
    longest_memory: float = with_default(Reversible, "longest_memory", LONGEST_MEMORY)
    recurrent_lr_scale: float = _rate("the parameters of decays and phases")


class LRU(Remembering):
    """Linear recurrent units, LRU."""

    classifier = _gated(lru.LRU)
    recurrent = ("nu_log", "theta_log", "gamma_log")
    shortest_period: float = option(SHORTEST_PERIOD, "phases start up to 2 pi over it")


class RGLRU(Remembering):
    """Real-gated linear recurrent units, RG-LRU; with sparsity, gates keep their biases."""

    classifier = _gated(selective.RGLRU)
    recurrent = ("decay_logit",)


class S6(Remembering):
    """A diagonal, real recurrence like Mamba's; with sparsity, its steps keep their biases."""

    classifier = _gated(selective.S6)
    recurrent = ("rate_log",)


class LinOSS(Gated):
    """Linear oscillators, LinOSS."""

    classifier = _gated(linoss.LinOSS)
    recurrent = ("stiffness", "time_step")
    recurrent_lr_scale: float = _rate("A and dt")


class MinGRU(Gated):
    """minGRU; with sparsity, its gate keeps a bias."""  # noqa: D403 (its name)

    classifier = _gated(selective.MinGRU)
    longest_memory: float | None = option(
        None, "longest dependency, in steps, of chrono initialisation of the gate; None does "
        "without", least=2)  # fmt: skip


class ResNet(Network):
    """A residual convolutional network, which merges steps."""

    classifier = partial(PeerClassifier, resnet.ResNet)
    read: str = with_default(Network, "read", "mean")


#: Every network, by its name.
NETWORKS: dict[str, type[Network]] = {
    one.__name__.lower(): one
    for one in (
        IRevRNN, Block, LSTM, GRU, LRU, RGLRU, S6, LinOSS, MinGRU, ResNet,
    )
}  # fmt: skip
