"""Schedules of checkpoints: as few runs as can be, and the same gradient to the last bit."""

from functools import cache

import pytest
import torch
from torch import nn

from irevrnn import Dropout, IRevBlock, IRevRNN, IRevStack
from irevrnn.strategies.revolve import fewest_checkpoints, first_places, rounds_of, stride
from irevrnn.strategies.strategy import Plan
from tests.cases import assert_same_bits


@cache
def least_runs(chunks, checkpoints):
    """Runs forward that the best schedule takes up to the last chunk, by trying all."""
    if chunks == 1:
        return 0
    if checkpoints == 1:
        return chunks * (chunks - 1) // 2
    return min(
        ahead + least_runs(chunks - ahead, checkpoints - 1) + least_runs(ahead, checkpoints)
        for ahead in range(1, chunks)
    )


def runs(chunks, checkpoints):
    """Runs forward, of each chunk, as the strategy takes them; the forward pass is the first."""
    counts, kept = [1] * chunks, first_places(chunks, checkpoints)
    assert len(kept) <= checkpoints and kept[-1] < chunks
    for chunk in reversed(range(chunks)):
        while kept[-1] < chunk:
            ahead = stride(chunk + 1 - kept[-1], checkpoints + 1 - len(kept))
            for index in range(kept[-1], kept[-1] + ahead):
                counts[index] += 1
            kept.append(kept[-1] + ahead)
            assert len(kept) <= checkpoints or kept[-1] == chunk  # the last is used at once
        kept.pop()
    return counts


@pytest.mark.parametrize("checkpoints", [1, 2, 3, 5, 40])
def test_no_schedule_takes_fewer_runs(checkpoints):
    for chunks in range(1, 41):
        counts = runs(chunks, checkpoints)
        assert sum(counts) == least_runs(chunks + 1, checkpoints)  # to the end of the last chunk
        assert max(counts) == rounds_of(chunks, checkpoints)


def test_a_million_steps_in_few_checkpoints():
    chunks = 10**6 // 64
    for rounds in (1, 2, 3, 4):
        checkpoints = fewest_checkpoints(chunks, rounds)
        assert rounds_of(chunks, checkpoints) <= rounds < rounds_of(chunks, checkpoints - 1)
    assert checkpoints < 30
    assert fewest_checkpoints(1, 1) == 1 and fewest_checkpoints(6, 2) == 3


# --- the strategy --------------------------------------------------------------------------------


def make_stack(memory="checkpoint", **options):
    torch.manual_seed(0)
    blocks = [IRevBlock(6, 9, **options), nn.Dropout(0.2), Dropout(0.2), IRevBlock(6, 5)]
    return IRevStack([nn.Linear(3, 6), *blocks], memory)


@pytest.fixture
def schedule(monkeypatch):
    """Chunks of 16 steps, and how many checkpoints are kept at once; 0 for all."""

    def choose(checkpoints):
        chosen = Plan("checkpoint", 16, checkpoints)
        monkeypatch.setattr(IRevStack, "_choose", lambda *_: chosen)

    return choose


def outcome(model, x, **call):
    torch.manual_seed(1)
    output, (h_n, c_n) = model(x, **call)
    loss = output.sin().sum() + sum(s.square().sum() for s in (*h_n, *c_n))
    return [output, *torch.autograd.grad(loss, [x, *model.parameters()])]


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("checkpoints", [1, 2, 4, 9])
@pytest.mark.parametrize("call", [
    {}, {"return_sequence": False}, {"lengths": [300, 77, 5]},
    {"resets": torch.arange(300).remainder(41).eq(3).expand(3, 300)},
], ids=["whole", "last", "lengths", "resets"])  # fmt: skip
def test_the_gradient_is_that_of_one_level(schedule, checkpoints, call):
    model = make_stack()
    x = torch.randn(3, 300, 3, requires_grad=True)
    schedule(0)
    wanted = outcome(model, x, **call)
    schedule(checkpoints)
    got = outcome(model, x, **call)
    assert_same_bits(got, wanted)


@pytest.mark.usefixtures("kernels")
def test_a_graph_that_is_kept_gives_the_same_again(schedule):
    schedule(2)
    model = make_stack()
    output, parameters = model(torch.randn(3, 300, 3))[0].sum(), [*model.parameters()]
    first, second = (torch.autograd.grad(output, parameters, retain_graph=True) for _ in range(2))
    assert_same_bits(first, second)


@pytest.mark.usefixtures("kernels")
def test_a_budget_is_kept_with_fewer_checkpoints():
    x = torch.randn(2, 20_000, 3)
    picked = []
    for budget in ("2MB", "260KB", "200KB"):
        model = IRevRNN(3, 32, 2, memory="checkpoint", activation="tanh", memory_budget=budget)
        output, _ = model(x, return_sequence=False)
        output.sum().backward()
        picked.append(model.picked)
    assert {plan.memory for plan in picked} == {"checkpoint"}
    assert picked[0].checkpoints == 0 < min(picked[1].checkpoints, picked[2].checkpoints)
    with pytest.raises(ValueError, match="needs at least"):
        IRevRNN(3, 32, 2, memory="checkpoint", memory_budget="1KB")(x)
