"""Reversible, independently recurrent networks: exact gradients, memory that hardly grows."""

from irevrnn.cell import IRevRNNCell
from irevrnn.functional import scan
from irevrnn.rnn import IRevRNN
from irevrnn.strategies.reversible import ReversalError

__all__ = ["IRevRNN", "IRevRNNCell", "ReversalError", "scan"]
__version__ = "0.2.0"
