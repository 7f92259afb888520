"""The strategies of ``memory``: how to save less between the forward and the backward pass.

Every strategy trades memory against recomputation. The first two work block by block
(:mod:`~irevrnn.strategies.layerwise`):

- ``store`` saves every intermediate value, as textbook BPTT does.
- ``recompute`` saves h, which the next block would save in any case, and c once every
  :data:`~irevrnn.kernels.ops.SEGMENT` steps (equation ``eq:saved`` of the paper). The backward
  pass replays each segment once, by the same instructions as the forward pass, so its gradient
  equals that of ``store`` to the last bit.

The others take the whole stack through one chunk of steps after the other
(:mod:`~irevrnn.strategies.chunkwise`). They save neither z nor any block's output: what stands
between two recurrences is computed again from the chunk's input.

- ``checkpoint`` saves h and c of every block where chunks of steps begin, and runs
  each chunk once more. Its outputs equal those of ``recompute`` to the last bit. Gradients of
  parameters are summed within each chunk, then over the chunks, last chunk first: they differ by
  the rounding of this order of summation alone.
- ``reversible`` saves the final h and c and the bits that were forgotten.

  *Bits.* The decay forgets 2 (1 - abs(u)) for each unit and step where abs(u) is above 1/2
  (equation ``eq:decay``). Where u = 1 nothing is forgotten, and what is saved does not grow with
  the length at all. At a reset, both states are stored, 64 bits for each unit; where a state needs
  another scale, about 90. The activation must
  be ``identity``; ``leaky_relu``, which forgets two bits more in each negative step; or ``relu``,
  which forgets all that it cuts off, 30 bits in each step where it is 0.

  *Gradient.* States are 32-bit fixed-point numbers, for float64 parameters, too. So
  outputs differ from those of the other strategies by rounding, and ``torch.autograd.gradcheck``
  needs one of the others. The gradient is that of BPTT at the states that the forward pass visited,
  straight through every rounding: at exactly these h, and at exactly these c once every
  :data:`~irevrnn.kernels.ops.SEGMENT` steps, from which those between are computed in floating
  point.

  *Check.* The backward pass compares hashes of the states where chunks begin, at most 64 of each
  block, and one of the output. A mismatch raises :class:`irevrnn.ReversalError`, and no gradient is
  returned.

  *Inference.* Where no gradient is recorded, nothing is reversed: ``recompute`` runs in its place,
  or ``checkpoint`` with a budget or if one block's states are more than 2^24 numbers.
- ``store_fixed`` is a control: the arithmetic of ``reversible`` with h of every step and c of every
  segment stored. Its gradient equals that of ``reversible`` to the last bit.

``auto`` takes ``recompute`` if it fits ``memory_budget``, and else ``checkpoint`` with chunks and
states that do (:mod:`~irevrnn.strategies.budget`). What goes with what is decided in
:mod:`~irevrnn.strategies.rules`. A strategy knows a recurrence by one protocol
(:mod:`irevrnn.recurrences.protocol`) and nothing else about it.
"""
