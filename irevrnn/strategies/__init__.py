"""The strategies of ``memory``: how to save less between the forward and the backward pass.

Two work block by block (:mod:`~irevrnn.strategies.layerwise`):

- ``store`` saves every intermediate value, as textbook BPTT does.
- ``recompute`` saves h, which the next block would save in any case, and c once every
  :data:`~irevrnn.kernels.ops.SEGMENT` steps (equation ``eq:saved`` of the paper). The backward
  pass replays each segment once, by the same instructions, so its gradient equals that of ``store``
  to the last bit.

The others take the whole stack through one chunk of steps after the other
(:mod:`~irevrnn.strategies.chunkwise`), and compute what stands between two recurrences again:

- ``checkpoint`` saves h and c of every block where chunks begin, and runs each chunk once more. Its
  outputs equal those of ``recompute`` to the last bit. Gradients of parameters are summed within
  each chunk, then over the chunks, last chunk first: they differ by the rounding of this order.
- ``reversible`` saves the final h and c and the bits that were forgotten: by decays (equation
  ``eq:decay``), by ``relu`` and ``leaky_relu``, and at resets. States are 32-bit fixed-point
  numbers, for float64 parameters, too. The gradient is that of BPTT at the states that the forward
  pass visited, straight through every rounding. Hashes of states are compared, and a mismatch
  raises :class:`irevrnn.ReversalError`. Where no gradient is recorded, ``recompute`` runs in its
  place, or ``checkpoint`` with a budget or if one block's states are more than 2^24 numbers.
- ``store_fixed`` is a control: the arithmetic of ``reversible`` with every state stored. Its
  gradient equals that of ``reversible`` to the last bit.

``auto`` takes ``recompute`` if it fits ``memory_budget``, and else ``checkpoint`` with chunks and
states that do (:mod:`~irevrnn.strategies.budget`). What goes with what is decided in
:mod:`~irevrnn.strategies.rules`. A strategy knows a recurrence by one protocol
(:mod:`irevrnn.recurrences.protocol`) and nothing else about it.
"""
