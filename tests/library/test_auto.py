"""The costs of strategies by the formulas, against measurement, and the choice of ``auto``."""

import copy
import ctypes
import functools
import itertools
import logging
import math
import re
import weakref
from contextlib import nullcontext, suppress

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from experiments.bench.measure import peak_memory, saved_bytes
from irevrnn import Dropout, IRevBlock, IRevRNN, IRevStack
from irevrnn.strategies import auto
from irevrnn.strategies import saved_bytes as formulas
from irevrnn.strategies.chunks import chunk_length
from irevrnn.strategies.rules import OF_THE_STACK, unsupported_reason
from irevrnn.strategies.workload import Workload
from tests.cases import assert_same_bits
from tests.library.convolution import Convolution

pytestmark = pytest.mark.usefixtures("kernels")


def make_model(memory="recompute", features=5, hidden=7, **keywords):
    torch.manual_seed(0)
    keywords = {"num_layers": 3, "activation": "leaky_relu", **keywords}
    return IRevRNN(features, hidden, memory=memory, **keywords)


def load_of(model, x, hidden=None, return_sequence=True, resets=None):
    batch = model._batch(x, None, model._stack().blocks[0].recurrent_weight)
    return Workload.of(batch, hidden is None, return_sequence, batch.arrange_resets(resets))


def plan_of(model, load, memory):
    return formulas.plan(model._stack(), load, memory)


def measured(model, x, hidden=None, return_sequence=True, resets=None):
    given = [t for t in tree_leaves((x, hidden, resets)) if t is not None]
    return saved_bytes(
        lambda: model(x, hidden, return_sequence=return_sequence, resets=resets),
        exclude=(*given, *model.parameters(), *model.buffers()),
        exclude_output=True,
    )


# Saved bytes

#: Steps, return_sequence, whether the stack makes the initial states, batch_first, and resets.
LOADS = [
    (16, True, True, True, False), (160, False, True, True, True), (33, False, False, False, True),
]  # fmt: skip


def cases(model, features, loads, batch=4):
    """An input, hidden states, return_sequence and resets of every load."""
    for steps, sequence, own, batch_first, with_resets in loads:
        model.batch_first = batch_first
        shape = (batch, steps) if batch_first else (steps, batch)
        x, resets = torch.randn(*shape, features), torch.rand(shape) < 0.1
        sizes = [block.hidden_size for block in model._stack().all_blocks]
        states = [torch.randn(batch, size) for size in sizes]
        states = torch.stack(states) if len(set(sizes)) == 1 else tuple(states)
        yield x, None if own else (states, states), sequence, resets if with_resets else None


@pytest.mark.parametrize("strategy", ["store", "recompute", "checkpoint"])
@pytest.mark.parametrize(("norm", "dropout", "residual", "bidirectional"), [
    (None, 0.0, False, False), ("layer", 0.5, False, False), ("batch", 0.5, True, False),
    ("layer", 0.0, True, False), (None, 0.5, True, True), ("layer", 0.0, False, True),
])  # fmt: skip
def test_saved_bytes_are_exact(strategy, norm, dropout, residual, bidirectional):
    reason = unsupported_reason(strategy, bidirectional=bidirectional)
    if reason or (norm == "batch" and strategy in OF_THE_STACK):
        pytest.skip("cannot train")
    options = {"norm": norm, "dropout": dropout, "residual": residual}
    width = 7 * (1 + bidirectional)
    for features, loads in ((5, LOADS[1:2]), (width, LOADS[2:3])):
        model = make_model(strategy, features, bidirectional=bidirectional, **options)
        for case in cases(model, features, loads):
            plan = plan_of(model, load_of(model, *case), strategy)
            assert plan.saved == measured(model, *case)


def gated(**options):
    return IRevBlock(6, 9, dropout=0.1, **options)


STACKS = {
    "gated": lambda: [nn.Linear(4, 6), gated(norm=None), gated()],
    "dropout": lambda: [nn.Linear(4, 6), gated(), Dropout(0.2)],
    "no gate": lambda: [IRevBlock(4, 9, gate=False, bias=False), IRevBlock(4, 5, residual=False)],
    "own": lambda: [nn.Linear(4, 6), Convolution(6, 9), Convolution(6, 12)],
    "mixed": lambda: [
        nn.Linear(4, 6), gated(forgets=False, num_couplings=2), nn.GELU(), Convolution(6, 7),
        Dropout(0.1), gated(activation="leaky_relu"), nn.Linear(6, 3),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("strategy", "kind"), [
    *(("recompute", kind) for kind in STACKS), ("store", "mixed"), ("checkpoint", "gated"),
    ("checkpoint", "mixed"), ("checkpoint", "dropout"), ("checkpoint", "own"),
])  # fmt: skip
def test_saved_bytes_of_blocks_are_exact(strategy, kind):
    model = IRevStack(STACKS[kind](), strategy)
    for case in cases(model, 4, LOADS[1:3] if strategy in OF_THE_STACK else LOADS):
        plan = plan_of(model, load_of(model, *case), strategy)
        assert plan.saved == measured(model, *case)


@pytest.mark.parametrize("activation", ["identity", "leaky_relu"])
def test_reversible_saves_at_most_what_the_weights_say(activation):
    model = make_model("reversible", activation=activation, norm="layer", hidden=64, num_layers=2)
    x = torch.randn(4, 3000, 5)
    plan = plan_of(model, load_of(model, x), "reversible")
    least = {"identity": 0.95, "leaky_relu": 0.4}[activation]  # a half of all values is negative
    assert least * plan.saved < measured(model, x) <= plan.saved + 16 * 2 * 4 * 64


@pytest.mark.parametrize("kind", ["gated", "dropout", "own"])
def test_reversible_blocks_save_what_the_weights_say(kind):
    model = IRevStack(STACKS[kind](), "reversible")
    for case in cases(model, 4, [(1000, *load) for _, *load in LOADS], batch=16):
        plan = plan_of(model, load_of(model, *case), "reversible")
        # Beside it, the changes of a few scales.
        assert plan.saved / 1.15 < measured(model, *case) <= 1.02 * plan.saved


def test_what_never_forgets_saves_the_same_at_every_length_and_64_bits_a_reset():
    blocks = [nn.Linear(4, 8), *(IRevBlock(8, 64, forgets=False) for _ in range(2))]
    model, saved = IRevStack(blocks, "reversible", batch_first=False), {}
    for steps in (300, 3000):
        x, resets = torch.randn(steps, 32, 4), torch.rand(steps, 32) < 0.02
        saved[steps] = plan_of(model, load_of(model, x), "reversible").saved
        # Beside it, the changes of a few scales.
        assert saved[steps] <= measured(model, x) <= 1.02 * saved[steps]
        with_resets = plan_of(model, load_of(model, x, resets=resets), "reversible").saved
        assert with_resets <= measured(model, x, resets=resets) <= 1.02 * with_resets
        bits = 64 * 2 * 64 * int(resets.sum())
        assert with_resets - saved[steps] == pytest.approx(bits / 8, rel=1e-3)  # and the counts
    assert saved[300] == saved[3000]


@pytest.mark.parametrize("frozen", [r"blocks\.[01]\.", "projection", "(?!.*recurrent)"])
def test_a_frozen_stack_saves_less(frozen):
    model, x = IRevStack(STACKS["gated"]()), torch.randn(4, 33, 4)
    plans = [plan_of(model, load_of(model, x), "recompute")]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(re.search(frozen, name) is None)
    plans.append(plan_of(model, load_of(model, x), "recompute"))
    assert plans[1].saved < plans[0].saved
    assert plans[1].saved == measured(model, x)


class Choosing(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_a_module_that_looks_at_values(capsys):
    model = IRevStack([Choosing(), IRevBlock(4, 5)])
    model(torch.randn(2, 20, 4))
    with pytest.raises(ValueError, match="one looks at values"):
        model.memory_report(torch.randn(2, 20, 4))


# The peak, as the operating system sees it

#: Steps, batch and the number of blocks.
SIZES = {
    "recompute": (1500, 4, 2), "store": (1000, 4, 2), "checkpoint": (800, 16, 5),
    "reversible": (800, 16, 5), "few checkpoints": (4000, 16, 5),
}  # fmt: skip
#: Steps in a chunk, and checkpoints.
FEW = 64, 12


def peak_case(kind, strategy):
    steps, batch, depth = SIZES[strategy]
    few, strategy = strategy == "few checkpoints", strategy.replace("few checkpoints", "checkpoint")
    if kind == "layers":
        options = {"num_layers": depth, "activation": "identity", "norm": "layer"}
        model = make_model(strategy, features=8, hidden=256, **options)
    else:
        blocks = [IRevBlock(128, 256, dropout=0.1) for _ in range(depth)]
        model = IRevStack([nn.Linear(8, 128), *blocks], strategy)
    if few:
        model._choose = lambda *_: (strategy, *FEW)
    return model, torch.randn(batch, steps, 8)


def prepare_peak(kind, strategy):
    torch.set_num_threads(1)
    return_freed_memory()
    model, x = peak_case(kind, strategy)

    def step(x=x):
        model(x, return_sequence=False)[0].sum().backward()

    step(x[:, :500])
    model.zero_grad()
    return step


def return_freed_memory():
    """Make glibc give large blocks back at once: holes in its heap would hide what is alive."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(-3, 1 << 17)  # M_MMAP_THRESHOLD


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "strategy"), [
    ("layers", "recompute"), ("layers", "reversible"), ("blocks", "store"),
    ("blocks", "checkpoint"), ("blocks", "reversible"), ("layers", "few checkpoints"),
])  # fmt: skip
def test_the_peak_is_near_the_estimate(kind, strategy):
    model, x = peak_case(kind, strategy)
    few = FEW if strategy == "few checkpoints" else ()
    load = load_of(model, x, return_sequence=False)
    plan = formulas.plan(model._stack(), load, model.memory, *few)
    assert peak_memory(prepare_peak, kind, strategy) == pytest.approx(plan.peak, rel=0.15)


# auto


def test_auto_takes_the_fastest_strategy_that_fits(caplog):
    x = torch.randn(2, 10_000, 5)
    options = {"hidden": 64, "num_layers": 2, "activation": "identity", "norm": "layer"}
    model = make_model("auto", memory_budget="1GB", **options)
    with torch.no_grad():
        for layer in model.layers:
            layer.recurrent_weight.uniform_(0.999, 1)
    plans = list(auto.options(model._stack(), load_of(model, x)))
    budgets = sorted({plan.peak for plan in plans}, reverse=True)
    picked = []
    with caplog.at_level(logging.INFO, "irevrnn"):
        for model.memory_budget in budgets:
            model(x)
            assert model.picked.peak <= model.memory_budget
            picked.append(model.picked)
    places = [plans.index(plan) for plan in picked]
    assert places[0] == 0 and places == sorted(places)  # slower and slower
    changes = [name for name, _ in itertools.groupby(plan.memory for plan in picked)]
    assert changes[:3] == ["recompute", "checkpoint", "reversible"]
    assert len(caplog.messages) == len(changes)
    assert "picked 'reversible', chunks of" in caplog.messages[2]
    assert {record.levelname for record in caplog.records} == {"INFO"}


@pytest.mark.parametrize("memory", ["checkpoint", "reversible"])
def test_a_budget_sets_the_length_of_chunks(memory):
    x = torch.randn(2, 6000, 5)
    options = {"hidden": 64, "num_layers": 2, "activation": "identity", "norm": "layer"}
    chunks = []
    for budget in ("1GB", "10MB", "3MB", "1MB"):
        model = make_model(memory, memory_budget=budget, **options)
        model(x, return_sequence=False)[0].sum().backward()
        assert model.picked.memory == memory and model.picked.peak <= model.memory_budget
        chunks.append(model.picked.chunk)
    assert chunks[0] == 2048 == 4 * chunk_length(memory, 6000, 2, 64)
    assert chunks == sorted(chunks, reverse=True) and chunks[1] > chunks[2] > chunks[3] >= 16
    model.memory_budget = 1000
    with pytest.raises(ValueError, match=f"needs at least .*memory='{memory}'"):
        model(x)
    with torch.no_grad():  # makes no graph
        model(x)


@pytest.mark.parametrize("memory", ["auto", "checkpoint", "reversible"])
def test_a_budget_goes_with_a_batch_of_none_and_a_single_step(memory):
    model = make_model(memory, norm="layer", memory_budget="1GB")
    assert model(torch.zeros(0, 30, 5))[0].shape == (0, 30, 7)
    assert model(torch.zeros(2, 1, 5))[0].shape == (2, 1, 7)
    chunks = [plan.chunk for plan in auto.options(model._stack(), formulas.Workload(40, 2, 5))]
    assert max(chunks) == 40  # no chunk is longer than the sequence


def test_what_auto_runs_is_the_strategy_it_names(monkeypatch):
    x = torch.randn(2, 300, 5, requires_grad=True)
    model = make_model("auto", norm="layer", memory_budget="1GB")
    plans = list(auto.options(model._stack(), load_of(model, x)))
    for strategy in auto.CANDIDATES:
        pick = next(plan for plan in plans if plan.memory == strategy)
        monkeypatch.setattr(auto, "choose", lambda *_, pick=pick: pick)
        got, wanted = (
            torch.autograd.grad(each(x)[0].sum(), [x, *each.parameters()])
            for each in (model, make_model(strategy, norm="layer"))
        )
        assert_same_bits(got, wanted)


def test_a_budget_that_nothing_fits():
    model = make_model("auto", activation="tanh", memory_budget=1000)
    message = r"is 1 kB, but an input of 50 steps .* at least .*'reversible' is impossible: .*tanh"
    with pytest.raises(ValueError, match=message):
        model(torch.randn(2, 50, 5))


def test_without_gradients_any_budget_does():
    model = make_model("auto", memory_budget=1000)
    x = torch.randn(2, 500, 5)
    with torch.no_grad():
        output, _ = model(x)
    assert model.picked.memory == "checkpoint"
    model.memory, model.memory_budget = "recompute", None
    assert torch.equal(output, model(x)[0])


def test_a_reason_against_checkpoint_is_given():
    x = torch.randn(2, 500, 5)
    model = make_model("checkpoint", norm="batch", memory_budget="1GB")
    with pytest.raises(ValueError, match="cannot run with the batch norm of layer 0"):
        model(x)
    model = make_model("auto", memory_budget=1000)
    prune.random_unstructured(model.layers[1], "recurrent_weight", 0.5)
    assert "pruned" in auto.why_not(model._stack(), "checkpoint")
    with pytest.raises(
        ValueError, match=r"memory='recompute'; 'checkpoint' is impossible: .* prun"
    ):
        model(x)


def test_auto_keeps_to_what_can_train():
    model = make_model("auto", norm="batch", memory_budget="1GB")
    task = formulas.Workload(1000, 2, 5)
    assert {plan.memory for plan in auto.options(model._stack(), task)} == {"recompute"}
    model.eval()
    assert len({plan.memory for plan in auto.options(model._stack(), task)}) == 3
    model.layers[0].recurrent_weight.data[0] = 1.5
    assert "outside" in auto.why_not(model._stack(), "reversible")


@pytest.mark.parametrize(("text", "size"), [
    (1000, 1000), ("256MB", 256_000_000), ("1.5 GiB", 3 * 2**29), ("64 kB", 64_000), ("8KB", 8000),
    (np.int64(1000), 1000), ("0.1B", None), ("0MB", None), (0, None), (-1, None), ("many", None),
    ("MB", None), (True, None), (1.5, None), (2e9, 2_000_000_000), (math.inf, None),
])  # fmt: skip
def test_bytes_in_words(text, size):
    if size is None:
        with pytest.raises(ValueError, match="memory_budget must be a whole number of bytes"):
            auto.parse_bytes(text)
    else:
        assert auto.parse_bytes(text) == size


def test_bytes_for_people():
    shown = [auto.format_bytes(size) for size in (999, 1000, 999_600_000, 2 * 10**12)]
    assert shown == ["999 B", "1 kB", "1 GB", "2 TB"]


# The report


def test_the_report_is_a_table_for_people(capsys):
    model = make_model(norm="layer", hidden=64)
    model.memory_report(torch.randn(8, 1000, 5))
    printed = capsys.readouterr().out
    for strategy in ("store", *auto.CANDIDATES):
        assert f"\n{strategy} " in printed
    plan = plan_of(model, formulas.Workload(1000, 8, 5, copied=True), "checkpoint")
    assert auto.format_bytes(plan.saved) in printed
    assert "chunk" in printed


def test_the_report_of_an_empty_batch(capsys):
    make_model().memory_report(torch.randn(0, 100, 5))
    assert "\nrecompute " in capsys.readouterr().out


def test_the_report_knows_resets(capsys):
    model = IRevStack([IRevBlock(5, 16, forgets=False)], "reversible")
    x, resets = torch.randn(2, 100, 5), torch.zeros(2, 100, dtype=torch.bool)
    resets[0, 50] = True
    model.memory_report(x, resets=resets)
    plan = plan_of(model, load_of(model, x, resets=resets), "reversible")
    assert f"\nreversible  {auto.format_bytes(plan.saved)} " in capsys.readouterr().out
    with pytest.raises(ValueError, match="resets"):
        model.memory_report(x, resets=resets[:, 1:])


def test_the_report_says_what_cannot_be_used(capsys):
    make_model(activation="tanh").memory_report(torch.randn(20, 5))
    assert "reversible: cannot be used, activation='tanh' cannot" in capsys.readouterr().out
    with pytest.raises(ValueError, match="input must have 5 features"):
        make_model().memory_report(torch.randn(8, 1000, 6))


@pytest.mark.parametrize("change", ["inference", "autocast", "width", "dropout"])
def test_costs_are_found_anew_for_another_state(change):
    blocks = [nn.Linear(5, 8), IRevBlock(8, 8), IRevBlock(8, 8)]
    model, x = IRevStack(blocks, "auto", "1GB"), torch.randn(2, 100, 5)
    fresh = IRevStack(copy.deepcopy(blocks), "auto", "1GB")
    with {
        "inference": torch.inference_mode(), "autocast": torch.autocast("cpu", torch.bfloat16),
    }.get(change, nullcontext()):  # fmt: skip
        model(x)
    if change == "dropout":
        model.blocks[2].dropout.p = fresh.blocks[2].dropout.p = 0.5
    if change == "width":
        model.blocks[1], fresh.blocks[1] = (IRevBlock(8, 64) for _ in range(2))
    model(x)
    fresh(x)
    assert model.picked == fresh.picked


def test_hooks_see_no_values_that_are_not_there():
    """The plan is made with fake tensors."""
    seen, model = [], IRevStack([nn.Linear(5, 8), IRevBlock(8, 8)], "auto", "1GB")
    model.blocks[0].register_forward_hook(lambda *_: seen.append(_[2].mean().item()))
    model.blocks[0].register_full_backward_pre_hook(lambda *_: seen.append(_[1][0].mean().item()))
    output, _ = model(torch.randn(2, 100, 5))
    assert len(seen) == 1
    output.sum().backward()
    assert len(seen) == 2


def test_what_a_module_keeps_of_the_plan_is_found_out():
    @functools.lru_cache
    def positions(count):
        return torch.linspace(0, 1, count)

    class Positions(nn.Module):
        def forward(self, x):
            return x * positions(x.shape[-1])

    blocks, x = [Positions(), IRevBlock(4, 8)], torch.randn(2, 40, 4)
    with pytest.raises(RuntimeError, match="one has kept such a tensor in a cache: clear"):
        IRevStack(blocks, "auto", "1GB")(x)
    positions.cache_clear()
    output, _ = IRevStack(blocks, "recompute")(x)
    assert torch.equal(IRevStack(blocks, "auto", "1GB")(x)[0], output)


def test_the_costs_that_are_kept_are_bounded():
    model = make_model("auto", memory_budget="1GB")
    for batch in range(1, 40):
        model(torch.randn(batch, 40, 5))
    assert 0 < len(model._costs) <= formulas.MOST_COSTS


def test_checkpoints_of_half_precision_are_of_single_precision():
    model = make_model("checkpoint").bfloat16()
    x = torch.randn(4, 900, 5, dtype=torch.bfloat16)
    assert plan_of(model, load_of(model, x), "checkpoint").saved == measured(model, x)


def test_a_model_on_the_meta_device_has_a_report(capsys):
    model, x = make_model(device="meta"), torch.empty(2, 9, 5, device="meta")
    model.memory_report(x)
    assert "cannot be used, memory='reversible' looks at values" in capsys.readouterr().out
    model.memory, model.memory_budget = "auto", 10**9
    assert model(x)[0].shape == (2, 9, 7) and model.picked.memory == "recompute"


def test_a_plan_is_no_part_of_what_is_watched():
    def make():
        return IRevStack([nn.Linear(5, 8), IRevBlock(8, 8)], "auto", "1GB")

    planned, x, counts = make(), torch.randn(2, 100, 5), []
    planned(x)
    for model in (planned, make()):
        with FlopCounterMode(display=False) as counter, torch.autograd.set_detect_anomaly(True):
            model(x)[0].sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("memory", ["auto", "checkpoint", "reversible"])
def test_a_plan_takes_any_parameters_and_leaves_no_trace_on_them(memory):
    x = torch.randn(2, 100, 5)
    with torch.inference_mode():
        model = make_model(memory, memory_budget="1GB")  # no graph may save its parameters
        assert model(x)[0].shape == (2, 100, 7)
    model = make_model(memory, memory_budget="1GB")
    model(x)
    assert not any(map(weakref.getweakrefcount, model.parameters()))


def test_auto_does_not_reverse_without_kernels(monkeypatch):
    model = make_model("auto", memory_budget="1GB")
    assert auto.why_not(model._stack(), "reversible") is None
    monkeypatch.setenv("IREVRNN_BACKEND", "python")
    assert "compiled kernels" in auto.why_not(model._stack(), "reversible")
    assert auto.why_not(model._stack(), "checkpoint") is None
