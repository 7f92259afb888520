"""Memory budgets, met by measurement, and the report of what strategies need."""

import math
import sys

import numpy as np
import pytest
import torch
from torch import nn

from experiments.bench.measure import in_fresh_process, saved_bytes
from irevrnn import IRevBlock, IRevRNN, IRevStack
from irevrnn.strategies import budget
from tests.cases import assert_same_bits
from tests.library import random_models
from tests.library.convolution import Convolution

pytestmark = pytest.mark.usefixtures("kernels")


def make(memory="recompute", memory_budget=None, features=5, hidden=7, **options):
    torch.manual_seed(0)
    options = {"num_layers": 3, "activation": "leaky_relu", **options}
    return IRevRNN(features, hidden, memory=memory, memory_budget=memory_budget, **options)


# --- what is measured ---------------------------------------------------------------------------

STACKS = {
    "layers": lambda: make(norm="layer", features=4),
    "both directions": lambda: make(bidirectional=True, features=4),
    "gated": lambda: IRevStack([nn.Linear(4, 6), IRevBlock(6, 9, dropout=0.1), IRevBlock(6, 9)]),
    "own": lambda: IRevStack([nn.Linear(4, 6), Convolution(6, 9), Convolution(6, 12)]),
    "mixed": lambda: IRevStack([IRevBlock(4, 9, gate=False), nn.GRU(4, 4), IRevBlock(4, 5)]),
}


@pytest.mark.parametrize("memory", ["store", "recompute", "checkpoint"])
@pytest.mark.parametrize("kind", STACKS)
@pytest.mark.parametrize("return_sequence", [True, False])
def test_saved_bytes_of_long_sequences_follow_from_the_first_steps(memory, kind, return_sequence):
    model = STACKS[kind]()
    if kind == "both directions" and memory == "checkpoint":
        pytest.skip("reads in one direction")
    x = torch.randn(3, 400, 4)
    report = model.memory_report(x, return_sequence=return_sequence)
    found = next(option for option in report.plans if option.memory == memory)
    model.memory = memory
    known = [x, *model.parameters(), *model.buffers()]
    saved = saved_bytes(
        lambda: model(x, return_sequence=return_sequence), known, exclude_output=True
    )
    assert saved == pytest.approx(found.saved, rel=0.02, abs=3000)


@pytest.mark.parametrize("forgets", [True, False])
def test_reversible_saves_what_the_weights_say(forgets):
    model = IRevStack([IRevBlock(8, 64, forgets=forgets) for _ in range(2)], batch_first=False)
    x = torch.randn(3000, 16, 8)
    [option] = [o for o in model.memory_report(x).plans if o.memory == "reversible"]
    model.memory = "reversible"
    saved = saved_bytes(
        lambda: model(x), [x, *model.parameters(), *model.buffers()], exclude_output=True
    )
    assert option.saved / 1.15 < saved < 1.02 * option.saved


def test_the_report_is_an_object_that_prints_itself():
    model = make(norm="layer", activation="tanh")
    report = model.memory_report(torch.randn(8, 1000, 5))
    lines = str(report).splitlines()
    assert lines[0] == "1000 steps, batch 8" and lines[1].startswith("memory ")
    assert "reversible: cannot be used, activation='tanh' cannot be inverted" in lines[-1]
    saved = {option.memory: option.saved for option in report.plans}
    assert saved["store"] > saved["recompute"] > saved["checkpoint"] > 0
    assert budget.format_bytes(saved["recompute"]) in str(report)
    assert (report.steps, report.batch) == (1000, 8)
    assert make().memory_report(torch.randn(0, 100, 5)).plans


def test_measuring_leaves_no_trace():
    model = IRevStack(
        [IRevBlock(4, 8, norm="batch", dropout=0.5), nn.BatchNorm1d(4)][:1], "auto", "1GB"
    )
    twin = IRevStack([IRevBlock(4, 8, norm="batch", dropout=0.5)])
    twin.load_state_dict({f"blocks.0.{k}": v for k, v in model.blocks[0].state_dict().items()})
    x, results = torch.randn(2, 100, 4), []
    for each in (model, twin):
        torch.manual_seed(0)
        output, _ = each(x)
        output.sum().backward()
        gradients = [p.grad for p in each.parameters()]
        results.append([output, *gradients, *each.buffers(), torch.get_rng_state()])
    assert model.picked.memory == "recompute"
    assert_same_bits(*results)


def test_no_import_and_little_memory_for_a_budget():
    """The compiler and SymPy would take more than the sequence."""
    assert in_fresh_process(imported_by_a_budget) == []


def imported_by_a_budget():
    model, x = IRevStack([IRevBlock(4, 8)], "checkpoint", "100MB"), torch.randn(1, 5000, 4)
    before = set(sys.modules)
    output, _ = model(x)
    output.sum().backward()
    new = {name.partition(".")[0] for name in set(sys.modules) - before}
    return sorted(
        new & {"sympy", "triton"} | ({"_dynamo"} if "torch._dynamo" in sys.modules else set())
    )


# --- what is chosen -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("case", [*random_models.KNOWN, *range(7)], ids=str)
def test_a_budget_holds_in_a_fresh_process(case):
    case = random_models.draw_case(case) if isinstance(case, int) else case
    grown, limit, plan = in_fresh_process(random_models.growth_of_step, case, threads=1)
    if grown is None:
        pytest.skip(plan)  # why the budget is refused
    assert grown <= limit, plan


def test_control_what_takes_too_much_is_seen():
    kind, options, features, hidden, _, _, input = random_models.KNOWN[0]
    case = kind, options, features, hidden, "auto", 200, input
    grown, _, plan = in_fresh_process(random_models.growth_of_step, case, threads=1)
    assert grown > 16e6, plan


def test_auto_recomputes_what_fits_and_else_keeps_checkpoints():
    x = torch.randn(2, 6000, 5, requires_grad=True)
    model = make("auto", "1GB", hidden=64, norm="layer")
    plans, results = [], []
    for share in (2, 0.5, 0.2):
        output, _ = model(x, return_sequence=False)
        results.append([output, *torch.autograd.grad(output.sum(), [x, *model.parameters()])])
        plans.append(model.picked)
        assert model.picked.peak <= model.memory_budget
        model.memory_budget = int(share * plans[0].peak)
    assert [each.memory for each in plans] == ["recompute", "recompute", "checkpoint"]
    for got in results[1:]:
        for one, other in zip(got, results[0], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("memory", ["checkpoint", "reversible"])
def test_a_budget_sets_the_length_of_chunks(memory):
    x = torch.randn(2, 6000, 5)
    model = make(memory, "1GB", hidden=64, num_layers=2, activation="identity", norm="layer")
    model(x, return_sequence=False)
    [(_, loaded)] = model._costs.values()
    chunks = []
    for extra in (100e6, 8e6, 4e6, 1.5e6):
        model.memory_budget = loaded + extra
        model(x, return_sequence=False)[0].sum().backward()
        assert model.picked.memory == memory and model.picked.peak <= model.memory_budget
        chunks.append(model.picked.chunk)
    assert chunks == sorted(chunks, reverse=True) and chunks[0] > chunks[2] > chunks[3] >= 16
    model.memory_budget = 1000
    with pytest.raises(ValueError, match=f"needs at least .*memory='{memory}'"):
        model(x)
    with torch.no_grad():  # makes no graph
        assert model(x)[0].shape == (2, 6000, 64)


def test_reversal_that_forgets_more_than_its_budget_is_an_error():
    model = make("reversible", "1GB", hidden=64, activation="identity")
    x = torch.randn(16, 4000, 5)
    with torch.no_grad():
        for layer in model.layers:
            layer.recurrent_weight.fill_(0.6)
    model(x)
    model._choose = lambda *_: budget.replace(model.picked, most_bits=500_000)
    with pytest.raises(ValueError, match=r"leaves 500,000 bytes .* after .* steps it takes"):
        model(x)


@pytest.mark.parametrize("memory", ["auto", "checkpoint", "reversible"])
def test_a_budget_goes_with_no_sequence_and_a_single_step(memory):
    model = make(memory, "1GB", norm="layer")
    assert model(torch.zeros(0, 30, 5))[0].shape == (0, 30, 7)
    assert model(torch.zeros(2, 1, 5))[0].shape == (2, 1, 7)


def test_why_nothing_fits():
    model = make("auto", 1000, norm="batch")
    message = r"is 1 kB, but .* 50 steps .* at least .*'checkpoint' is impossible: .* batch norm"
    with pytest.raises(ValueError, match=message):
        model(torch.randn(2, 50, 5))


def test_a_budget_is_refused_under_a_transform():
    model = make("auto", "1GB")
    with pytest.raises(NotImplementedError, match="memory_budget measures a pass over the first"):
        torch.func.grad(lambda x: model(x)[0].sum())(torch.randn(2, 40, 5))


def test_measurements_are_kept_for_each_batch_size_and_bounded():
    model = make("auto", "1GB")
    for batch in (*range(1, 70), 69):
        model(torch.randn(batch, 40, 5))
    assert 0 < len(model._costs) <= 64


@pytest.mark.parametrize(("text", "size"), [
    (1000, 1000), ("256MB", 256_000_000), ("1.5 GiB", 3 * 2**29), ("8KB", 8000),
    (np.int64(1000), 1000), ("0.1B", None), (0, None), (-1, None), ("many", None), ("MB", None),
    (True, None), (1.5, None), (2e9, 2_000_000_000), (math.inf, None),
])  # fmt: skip
def test_bytes_in_words(text, size):
    if size is None:
        with pytest.raises(ValueError, match="memory_budget must be a whole number of bytes"):
            budget.parse_bytes(text)
    else:
        assert budget.parse_bytes(text) == size


def test_bytes_for_people():
    shown = [budget.format_bytes(size) for size in (999, 1000, 999_600_000, 2 * 10**12)]
    assert shown == ["999 B", "1 kB", "1 GB", "2 TB"]
