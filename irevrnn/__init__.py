"""Reversible, independently recurrent networks: exact gradients, memory that hardly grows."""

from irevrnn.functional import scan
from irevrnn.rnn import IRevRNN

__all__ = ["IRevRNN", "scan"]
__version__ = "0.1.0"
