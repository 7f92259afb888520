"""torch.compile: the same bits, without compiling anew for every length."""

import warnings
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch._dynamo.compiled_autograd import _enable
from torch._dynamo.testing import CompileCounterWithBackend

from irevrnn import Dropout, IRevBlock, IRevRNN, IRevStack, scan
from irevrnn.strategies.strategy import Plan
from tests.cases import assert_same_bits, make_inputs, run

LENGTHS = (40, 333, 48, 47, 64, 100, 117, 500)
OPTIONS = (
    {}, {"norm": "layer"}, {"norm": "batch"}, {"dropout": 0.3}, {"residual": True},
    {"bidirectional": True}, {"batch_first": False},
)  # fmt: skip
dynamically = pytest.mark.parametrize(
    ("memory", "dynamic"), [("recompute", True), ("recompute", None), ("store", None)]
)


@pytest.fixture(autouse=True)
def _fresh_compiler(kernels):
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", DeprecationWarning)
        yield


def outcome(model, parameters, *inputs, **options):
    """Outputs and gradients; dropout draws the same masks every time."""
    torch.manual_seed(1)
    output, (h_n, c_n) = model(*inputs, **options)
    loss = output.square().mean() + h_n.mean() + c_n.mean()
    return [output.detach(), h_n.detach(), c_n.detach(), *torch.autograd.grad(loss, parameters)]


@dynamically
def test_scan(memory, dynamic):
    """One graph for any length, and none of it depends on where the resets are."""
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(scan, fullgraph=True, backend=counter, dynamic=dynamic)
    for steps in LENGTHS:
        case, resets = make_inputs(steps, 2, 9, 3, torch.float32), torch.rand(steps, 2) < 0.1
        got = run(compiled, case, memory=memory, resets=resets)
        assert_same_bits(got, run(scan, case, memory=memory, resets=resets))
    assert counter.frame_count <= 2


@pytest.mark.parametrize("options", [*OPTIONS, {"memory": "store"}], ids=str)
def test_layer(options):
    model = IRevRNN(5, 8, 2, **options)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x, parameters = torch.randn(3, 20, 5), list(model.parameters())
    assert_same_bits(outcome(compiled, parameters, x), outcome(model, parameters, x))


def test_layer_with_inductor():
    model = IRevRNN(5, 16, 2, norm="layer")
    compiled, parameters = torch.compile(model, fullgraph=True), list(model.parameters())
    x = torch.randn(3, 30, 5)
    got, wanted = (outcome(m, parameters, x) for m in (compiled, model))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)


@dynamically
def test_lengths_and_batches_share_their_graphs(memory, dynamic):
    model = IRevRNN(5, 8, 2, memory=memory)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, backend=counter, dynamic=dynamic)
    parameters = list(model.parameters())
    for steps in LENGTHS:
        x = torch.randn(3, steps, 5)
        assert_same_bits(outcome(compiled, parameters, x), outcome(model, parameters, x))
    assert counter.frame_count <= 2
    for batch in (4, 5, 6):
        x = torch.randn(batch, 50, 5)
        assert_same_bits(outcome(compiled, parameters, x), outcome(model, parameters, x))
    assert counter.frame_count <= 3
    for steps in (3, 9, 17, 29):  # the shortest, which hold c never or once, have their own
        outcome(compiled, parameters, torch.randn(3, steps, 5))
    assert counter.frame_count <= 5


@pytest.mark.parametrize("options", [
    {"memory": "checkpoint"}, {"memory": "reversible"}, {"memory": "auto", "memory_budget": "1GB"},
], ids=str)  # fmt: skip
def test_other_strategies_run_uncompiled_and_are_no_full_graph(options):
    model = IRevRNN(5, 8, 2, activation="identity", **options)
    compiled = torch.compile(model, backend="aot_eager")
    x, parameters = torch.randn(3, 40, 5), list(model.parameters())
    assert_same_bits(outcome(compiled, parameters, x), outcome(model, parameters, x))
    torch._dynamo.reset()
    message = "compiles with memory='recompute' or 'store', and .*: set model.memory = 'recompute'"
    with pytest.raises(RuntimeError, match=message):
        torch.compile(model, fullgraph=True, backend="aot_eager")(x)


@pytest.mark.parametrize("memory", ["recompute", "checkpoint"])
def test_sequences_of_different_length_run_uncompiled(memory):
    model = IRevRNN(5, 8, 2, memory=memory)
    compiled = torch.compile(model, backend="aot_eager")
    parameters, lengths = list(model.parameters()), [7, 3, 9]
    x = torch.randn(3, 9, 5)
    got, wanted = (outcome(m, parameters, x, lengths=lengths) for m in (compiled, model))
    assert_same_bits(got, wanted)
    torch._dynamo.reset()
    with pytest.raises(RuntimeError, match="sequences of one length"):
        torch.compile(model, fullgraph=True, backend="aot_eager")(x, lengths=lengths)


@pytest.mark.parametrize("memory", ["store", "recompute"])
@pytest.mark.parametrize("chosen", [{}, {"turns": "input", "forgets": "input"}], ids=str)
def test_a_stack_of_blocks(memory, chosen):
    blocks = [nn.Linear(3, 6), IRevBlock(6, 8, norm=None, dropout=0.2), IRevBlock(6, 8, **chosen)]
    model, x = IRevStack(blocks, memory), torch.randn(2, 40, 3)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    got, wanted = (outcome(m, [*model.parameters()], x) for m in (compiled, model))
    torch.testing.assert_close(got, wanted)
    last, wanted = (m.eval()(x, return_sequence=False)[0] for m in (compiled, model))
    torch.testing.assert_close(last, wanted)


def test_a_compiled_module_of_a_stack_drops_what_it_drops_uncompiled():
    """The mask of a sequence is that of all its chunks."""
    inner = nn.Sequential(nn.Linear(6, 6), Dropout(0.5))
    block, x = IRevBlock(6, 8), torch.randn(2, 400, 6)
    results = []
    for module in (inner, torch.compile(inner, backend="aot_eager")):
        model = IRevStack([module, block], "checkpoint")
        model._choose = lambda *_: Plan("checkpoint", 128)
        results.append(outcome(model, [*model.parameters()], x))
    torch.testing.assert_close(*results)
    torch.compile(inner, fullgraph=True, backend="aot_eager")(x)  # alone, it is one graph


@pytest.mark.parametrize("memory", ["recompute", "checkpoint", "reversible", "store_fixed"])
def test_compiled_autograd(memory):
    model, x = IRevStack([IRevBlock(3, 8)], memory), torch.randn(2, 40, 3)
    results = []
    for context in (nullcontext(), _enable(torch.compile(backend="aot_eager"))):
        model.zero_grad()
        loss = model(x)[0].square().mean()
        with context:
            loss.backward()
        results.append([p.grad for p in model.parameters()])
    assert_same_bits(*results)
