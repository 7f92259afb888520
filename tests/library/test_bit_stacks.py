"""Words of bit stacks come back group by group, as they were pushed."""

import pytest
import torch

from irevrnn.strategies.reversible import GROUP_BYTES, PARTS, BitStacks

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


def parts(words, counts):
    """The words of each stack of a buffer or a chunk."""
    return words.split(counts.tolist())


@pytest.mark.parametrize("chunks", [1, 2, PARTS, PARTS + 1, 3 * PARTS + 5, 700])
@pytest.mark.parametrize("most", [0, 1, 7, 300])
def test_a_group_has_the_words_of_its_chunks_stack_by_stack(chunks, most):
    words, counts = pushed(chunks, most)
    stacks, begin = there_and_back(words, counts), 0
    for last, (_, total) in stacks.groups.items():
        group = slice(begin, last + 1)
        own = [parts(*each) for each in zip(words[group], counts[group], strict=True)]
        buffer = stacks.buffer(last)
        assert buffer.counts.tolist() == total.tolist() == counts[group].sum(0).tolist()
        for stack, (start, count) in enumerate(zip(buffer.starts, buffer.counts, strict=True)):
            expected = torch.cat([part[stack] for part in own])
            assert torch.equal(buffer.words[start : start + count], expected)
        begin = last + 1
    assert not counts[begin:].any()


def test_chunks_without_words_save_nothing():
    words, counts = pushed(4 * PARTS, 0)
    short, long = (there_and_back(words[:n], counts[:n]).groups for n in (1, 4 * PARTS))
    assert len(short) == len(long) == 1
    assert all(len(words) == 0 for words, _ in [*short.values(), *long.values()])
    # The control, a single word of a late chunk, is saved.
    counts[-3, 2], words[-3] = 1, torch.tensor([7], dtype=torch.int32)
    stacks = there_and_back(words, counts)
    assert stacks.buffer(4 * PARTS - 1).words.tolist() == [7]
    assert stacks.buffer(3 * PARTS).counts.tolist() == [0] * STACKS


def test_a_group_has_enough_words_to_be_worth_its_objects():
    words, counts = pushed(700, 300)
    sizes = [words.nbytes for words, _ in there_and_back(words, counts).groups.values()]
    assert len(sizes) > 10
    assert min(sizes[:-1]) >= GROUP_BYTES
    assert max(sizes) < GROUP_BYTES + 2 * 4 * STACKS * 300
    # What a single chunk pushes is not cut, and not copied.
    words, counts = pushed(3, 10_000)
    groups = there_and_back(words, counts).groups
    assert [words.data_ptr() for words, _ in groups.values()] == [x.data_ptr() for x in words]
