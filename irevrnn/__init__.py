"""Reversible recurrent layers and blocks, for backpropagation through very long sequences.

:class:`irevrnn.IRevRNN` is called like ``nn.LSTM``; :class:`irevrnn.IRevStack` stacks gated blocks
(:class:`irevrnn.IRevBlock`) or your own (:class:`irevrnn.Block`). Their argument ``memory``
chooses what is saved for the backward pass: from every intermediate value (``store``) down to the
final states and the bits that were forgotten (``reversible``).
"""

from irevrnn.modules.block import Block
from irevrnn.modules.cell import IRevRNNCell
from irevrnn.modules.dropout import Dropout
from irevrnn.modules.functional import scan
from irevrnn.modules.gated_block import IRevBlock
from irevrnn.modules.optimization import parameter_groups
from irevrnn.modules.rnn import IRevRNN
from irevrnn.modules.stack import IRevStack
from irevrnn.modules.stepwise import check_stepwise
from irevrnn.modules.through_time import ThroughTime
from irevrnn.strategies.reversible import ReversalError

__all__ = [
    "Block",
    "Dropout",
    "IRevBlock",
    "IRevRNN",
    "IRevRNNCell",
    "IRevStack",
    "ReversalError",
    "ThroughTime",
    "check_stepwise",
    "parameter_groups",
    "scan",
]
__version__ = "0.2.0"
