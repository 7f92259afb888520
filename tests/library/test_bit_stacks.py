"""Words of bit stacks come back group by group, as they were pushed."""

import pytest
import torch

from irevrnn.strategies.reversible import GROUP, GROUPS, BitStacks

STACKS = 5


def pushed(chunks, most, seed=0):
    """Words of every chunk by stack, of random number, and the counts of each chunk."""
    drawn = torch.Generator().manual_seed(seed)
    counts = torch.randint(most + 1, (chunks, STACKS), generator=drawn)
    words = torch.randint(2**31, (int(counts.sum()),), generator=drawn, dtype=torch.int32)
    return list(words.split(counts.sum(1).tolist())), counts


def there_and_back(words, counts):
    stacks = BitStacks(len(words))
    for chunk, parts in enumerate(zip(words, counts, strict=True)):
        stacks.add(chunk, *parts)
    return BitStacks(len(words), stacks.groups)


@pytest.mark.parametrize("chunks", [1, 2, GROUP, GROUP + 1, 3 * GROUP + 5])
@pytest.mark.parametrize("most", [0, 1, 7])
def test_a_group_has_the_words_of_its_chunks_stack_by_stack(chunks, most):
    words, counts = pushed(chunks, most)
    stacks = there_and_back(words, counts)
    for begin in range(0, chunks, GROUP):
        group = slice(begin, begin + GROUP)
        parts = [x.split(n.tolist()) for x, n in zip(words[group], counts[group], strict=True)]
        buffer = stacks.buffer(min(begin + GROUP, chunks) - 1)
        assert buffer.counts.tolist() == counts[group].sum(0).tolist()
        for stack in range(STACKS):
            start, count = int(buffer.starts[stack]), int(buffer.counts[stack])
            expected = torch.cat([part[stack] for part in parts])
            assert torch.equal(buffer.words[start : start + count], expected)


def test_chunks_without_words_save_nothing():
    words, counts = pushed(4 * GROUP, 0)
    short, long = (there_and_back(words[:n], counts[:n]).groups for n in (1, 4 * GROUP))
    assert short.keys() == long.keys() == {0}
    # The control, a single word of a later group, is saved.
    counts[-1, 2], words[-1] = 1, torch.tensor([7], dtype=torch.int32)
    stacks = there_and_back(words, counts)
    assert stacks.buffer(4 * GROUP - 1).words.tolist() == [7]
    assert stacks.buffer(3 * GROUP - 1).counts.tolist() == [0] * STACKS


def test_the_number_of_groups_is_bounded():
    chunks = 3 * GROUP * GROUPS + 1
    counts = torch.ones(chunks, 1, dtype=torch.int64)
    words = list(torch.arange(chunks, dtype=torch.int32).split(1))
    stacks = there_and_back(words, counts)
    assert 1 < len(stacks.groups) <= GROUPS
    found = [stacks.buffer(chunk).words for chunk in range(0, chunks, stacks.size)]
    assert torch.equal(torch.cat(found), torch.cat(words))
