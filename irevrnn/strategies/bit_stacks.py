"""Keep what the bit stacks of a block hold, from the forward pass to the backward pass.

The inverse of a chunk takes just the words that its forward pass pushed. So the words of a long
sequence need never be one tensor: they are saved in groups of chunks, each of which is joined when
it is complete. Joining all of them at the end would take their memory twice.
"""

from __future__ import annotations

import torch
from torch import Tensor

from irevrnn.recurrences.fixed_scan import Buffer

#: Chunks in a group. A group has a 64-bit count for each stack: with fewer chunks the counts, with
#: more the parts of a group that is not complete, would take more memory.
GROUP = 16


class BitStacks:
    """The words of a block's bit stacks, in groups of :data:`GROUP` chunks.

    Chunks and groups without words are left out, but for the first, whose counts tell how many
    stacks there are: where nothing is forgotten, nothing grows with the length.
    """

    def __init__(self, groups: dict[int, tuple[Tensor, Tensor]] | None = None) -> None:
        self.groups = groups or {}
        self.parts: list[tuple[Tensor, Tensor]] = []
        self.group = 0

    def add(self, chunk: int, words: Tensor, counts: Tensor) -> None:
        """Add the words of a chunk, stack by stack, and the number of words of each stack."""
        if chunk // GROUP != self.group:
            self._close()
            self.group = chunk // GROUP
        if len(words) or chunk == 0:
            self.parts.append((words, counts))

    def _close(self) -> None:
        if self.parts:
            self.groups[self.group] = _joined(self.parts)
            self.parts = []

    def record(self) -> dict[int, tuple[Tensor, Tensor]]:
        """Return all groups, which make these stacks again."""
        self._close()
        return self.groups

    def buffer(self, chunk: int) -> Buffer:
        """Return the words of the group of a chunk, the last of this group."""
        if chunk // GROUP in self.groups:
            words, counts = self.groups[chunk // GROUP]
            return Buffer(words, counts.cumsum(0) - counts, counts)
        words, counts = next(iter(self.groups.values()))
        return Buffer(words[:0], *2 * [torch.zeros_like(counts)])


def _joined(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return all words, stack by stack, and the number of words of each stack."""
    if len(parts) == 1:
        return parts[0]
    counts = torch.stack([count for _, count in parts]).sum(0)
    joined = parts[0][0].new_empty(sum(len(words) for words, _ in parts))
    begin = counts.cumsum(0) - counts  # of each stack, then of what a part adds to it
    for words, count in parts:
        shift = begin - (count.cumsum(0) - count)
        place = shift.repeat_interleave(count, output_size=len(words))
        joined[place.add_(torch.arange(len(words), device=words.device))] = words
        begin += count
    return joined, counts
