"""What strategies cost by the formulas, against measurement, and what ``auto`` picks."""

import itertools
import logging

import pytest
import torch

from experiments.bench.measure import peak_memory, saved_bytes
from irevrnn import IRevRNN
from irevrnn.allocator import use_caching_allocator
from irevrnn.strategies import auto
from irevrnn.strategies import saved_bytes as formulas
from irevrnn.strategies.rules import OF_THE_STACK
from irevrnn.strategies.saved_bytes import Workload

pytestmark = pytest.mark.usefixtures("kernels")


def make_model(memory="recompute", features=5, hidden=7, **keywords):
    torch.manual_seed(0)
    keywords = {"num_layers": 3, "activation": "leaky_relu", **keywords}
    return IRevRNN(features, hidden, memory=memory, **keywords)


def load_of(model, x, hidden=None, return_sequence=True):
    return Workload.of(model._batch(x, None), hidden is None, return_sequence)


def plan_of(model, load, memory):
    return formulas.plan(model._stack(), load, memory)


def measured(model, x, hidden=None, return_sequence=True):
    return saved_bytes(
        lambda: model(x, hidden, return_sequence=return_sequence),
        exclude=(x, *model.parameters(), *model.buffers(), *(hidden or ())),
        exclude_output=True,
    )


@pytest.mark.parametrize("strategy", ["store", "recompute", "checkpoint", "store_fixed"])
@pytest.mark.parametrize("norm", [None, "layer", "batch"])
@pytest.mark.parametrize(("dropout", "residual"), [(0.0, False), (0.5, False), (0.5, True)])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_saved_bytes_are_exact(strategy, norm, dropout, residual, bidirectional):
    if bidirectional and strategy in OF_THE_STACK:
        pytest.skip("one direction only")
    options = {"norm": norm, "dropout": dropout, "residual": residual}
    options["bidirectional"] = bidirectional
    layers = 3 * (1 + bidirectional)
    same_size = 7 * (1 + bidirectional)
    for features, batch_first in ((5, True), (same_size, True), (same_size, False)):
        model = make_model(strategy, features, batch_first=batch_first, **options)
        if auto.why_not(model._stack(), formulas.Workload(9, 4, features), strategy):
            return
        for steps, sequence, own in ((33, True, True), (160, False, True), (33, False, False)):
            x = torch.randn(4, steps, features) if batch_first else torch.randn(steps, 4, features)
            hidden = None if own else tuple(torch.randn(2, layers, 4, 7))
            task = load_of(model, x, hidden, sequence)
            plan = plan_of(model, task, strategy)
            assert plan.saved == measured(model, x, hidden, sequence), (task, options)


@pytest.mark.parametrize("activation", ["identity", "leaky_relu"])
def test_reversible_holds_at_most_what_the_weights_say(activation):
    model = make_model("reversible", activation=activation, norm="layer", hidden=64, num_layers=2)
    x = torch.randn(4, 3000, 5)
    plan = plan_of(model, load_of(model, x), "reversible")
    least = {"identity": 0.95, "leaky_relu": 0.4}[activation]  # a half of all values is negative
    assert least * plan.saved < measured(model, x) <= plan.saved + 16 * 2 * 4 * 64


# The peak, as the operating system sees it

SIZES = {
    "recompute": (2000, 4, 256), "store": (1000, 4, 256), "checkpoint": (20_000, 4, 256),
    "reversible": (20_000, 4, 256),
}  # fmt: skip


def peak_case(strategy):
    steps, batch, hidden = SIZES[strategy]
    model = make_model(strategy, features=8, hidden=hidden, norm="layer", num_layers=2)
    return model, torch.randn(steps, batch, 8).transpose(0, 1)


def prepare_peak(strategy):
    torch.set_num_threads(1)
    use_caching_allocator()
    model, x = peak_case(strategy)

    def step(x=x):
        model(x, return_sequence=False)[0].sum().backward()

    step(x[:, :40])
    return step


@pytest.mark.slow
@pytest.mark.parametrize("strategy", SIZES)
def test_the_peak_is_near_the_estimate(strategy):
    model, x = peak_case(strategy)
    plan = plan_of(model, load_of(model, x, return_sequence=False), strategy)
    grown = peak_memory(prepare_peak, strategy)
    # oneDNN, which the projections run on, takes some 8 MB of its own, whatever the length.
    assert 0.5 * plan.peak < grown < 1.25 * plan.peak + 14e6


# auto


def test_auto_takes_the_fastest_strategy_that_fits(caplog):
    x = torch.randn(2, 10_000, 5)
    options = {"hidden": 64, "num_layers": 2, "activation": "identity", "norm": "layer"}
    model = make_model("auto", memory_budget="1GB", **options)
    with torch.no_grad():
        for layer in model.layers:
            layer.recurrent_weight.uniform_(0.999, 1)
    picked = []
    plans = list(auto.options(model._stack(), load_of(model, x)))
    with caplog.at_level(logging.INFO, "irevrnn"):
        for size in ("1GB", *(plan.peak for plan in plans)):
            model.memory_budget = auto.parse_bytes(size)
            model(x)
            picked.append((model.picked.memory, model.picked.peak <= model.memory_budget))
    assert [name for name, _ in itertools.groupby(name for name, _ in picked)] == [
        "recompute", "checkpoint", "reversible"
    ]  # fmt: skip
    assert all(fits for _, fits in picked)
    assert len(caplog.messages) == 3  # one for each change
    assert "picked 'reversible', chunks of" in caplog.messages[-1]


def test_what_auto_runs_is_the_strategy_it_names():
    x = torch.randn(2, 300, 5, requires_grad=True)
    model = make_model("auto", norm="layer", memory_budget="1GB")
    for strategy in auto.CANDIDATES:
        plain = make_model(strategy, norm="layer")
        options = [
            p for p in auto.options(model._stack(), load_of(model, x)) if p.memory == strategy
        ]
        wanted = torch.autograd.grad(plain(x)[0].sum(), [x, *plain.parameters()])
        chosen = make_model("auto", norm="layer", memory_budget="1GB")
        auto_pick = options[0]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(auto, "choose", lambda *_, pick=auto_pick: pick)
            got = torch.autograd.grad(chosen(x)[0].sum(), [x, *chosen.parameters()])
        assert all(torch.equal(g, w) for g, w in zip(got, wanted, strict=True))


def test_a_budget_that_nothing_fits():
    model = make_model("auto", activation="tanh", memory_budget=1000)
    with pytest.raises(
        ValueError,
        match=r"memory_budget is 1 kB, but an input of 50 steps .* at "
        r"least .*'reversible' is impossible: activation='tanh' cannot be inverted",
    ):
        model(torch.randn(2, 50, 5))  # fmt: skip


def test_auto_keeps_to_what_can_train():
    model = make_model("auto", norm="batch", memory_budget="1GB")
    task = formulas.Workload(1000, 2, 5)
    assert {plan.memory for plan in auto.options(model._stack(), task)} == {"recompute"}
    model.eval()
    assert len({plan.memory for plan in auto.options(model._stack(), task)}) == 3
    model.layers[0].recurrent_weight.data[0] = 1.5
    assert "outside" in auto.why_not(model._stack(), task, "reversible")


@pytest.mark.parametrize(("text", "size"), [
    (1000, 1000), ("256MB", 256_000_000), ("1.5 GiB", 3 * 2**29), ("64 kB", None), ("8KB", 8000),
    ("0MB", None), (0, None), (-1, None), ("many", None), ("MB", None), (True, None), (1.5, None),
])  # fmt: skip
def test_bytes_in_words(text, size):
    if size is None:
        with pytest.raises(ValueError, match="memory_budget must be a number of bytes"):
            auto.parse_bytes(text)
    else:
        assert auto.parse_bytes(text) == size


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


def test_the_report_says_what_cannot_be_used(capsys):
    make_model(activation="tanh").memory_report(torch.randn(20, 5))
    assert (
        "reversible: cannot be used, activation='tanh' cannot be inverted"
        in capsys.readouterr().out
    )
    with pytest.raises(ValueError, match="input_size = 5"):
        make_model().memory_report(torch.randn(8, 1000, 6))
