"""Where to keep states on the way through a chain of chunks that is reversed with few of them.

The schedule is that of Griewank and Walther (2000), "revolve": with c checkpoints, n chunks are
reversed by running each of them forward at most r times, the forward pass included, before it is
run with its graph, where n is less than (c + r)! / (c! r!), and no schedule takes fewer runs in
all. (In the paper, n may be equal to that, since its forward pass builds the last graph on its way.
Here it ends after the last chunk, as if a further one came next.)
"""

from __future__ import annotations

from bisect import bisect_left
from math import comb


def rounds_of(chunks: int, checkpoints: int) -> int:
    """Return how often a chunk is run forward at most, before it is run with its graph."""
    rounds = 1
    while comb(checkpoints + rounds, rounds) <= chunks:
        rounds += 1
    return rounds


def fewest_checkpoints(chunks: int, rounds: int) -> int:
    """Return the smallest number of checkpoints for that many rounds, at least 1."""
    numbers = range(1, chunks + 1)
    return 1 + bisect_left(numbers, True, key=lambda n: comb(n + rounds, rounds) > chunks)


def stride(chunks: int, checkpoints: int) -> int:
    """Return the chunks to run before the next state is kept.

    Args:
        chunks: to be reversed, from the last state that is kept on; at least 2. The last of them
            is not run forward.
        checkpoints: that may be kept of these, the one at their beginning included.
    """
    if checkpoints == 1:
        return chunks - 1
    rounds = rounds_of(chunks - 1, checkpoints)  # the last one is not run forward
    # What lies beyond the next checkpoint has one checkpoint fewer, what lies before it one round.
    beyond = comb(checkpoints - 1 + rounds - 1, rounds - 1)
    return max(1, min(comb(checkpoints + rounds - 1, rounds - 1), chunks - beyond))


def first_places(chunks: int, checkpoints: int) -> list[int]:
    """Return the chunks before which a state is kept in the forward pass, the first included."""
    places = [0]
    while len(places) < checkpoints and places[-1] < chunks - 1:
        ahead = stride(chunks + 1 - places[-1], checkpoints + 1 - len(places))
        places.append(places[-1] + ahead)
    return places
