"""Modules of all kinds, which the strategies of the stack run once more in the backward pass."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts
from torch.utils.flop_counter import FlopCounterMode

from irevrnn import Block, Dropout, IRevBlock, IRevRNN, IRevStack, ReversalError
from irevrnn.strategies.strategy import Plan
from tests.cases import assert_same_bits

pytestmark = pytest.mark.usefixtures("kernels")
chunkwise = pytest.mark.parametrize("memory", ["checkpoint", "reversible"])


class Listed(nn.Linear):
    """A module that reaches its parameters by a bound method."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.functions = [super().forward]

    def forward(self, x):
        return self.functions[0](x)


def compiled_in_place():
    layer = nn.Linear(4, 4)
    layer.compile(backend="eager")
    return layer


def draw(steps=150):
    return torch.randn(steps, 2, 4, generator=torch.Generator().manual_seed(1))


def gradients(model, x, memory, between=lambda: None):
    """Gradients of x, where it requires one, and of the parameters; dropout from one seed."""
    model.memory = memory
    model.zero_grad()
    torch.manual_seed(2)
    output, _ = model(x)
    between()
    output.square().mean().backward()
    return [p.grad for p in model.parameters()]


def assert_same(got, wanted):
    for g, w in zip(got, wanted, strict=True):
        assert (g is None) == (w is None)
        if g is not None:
            torch.testing.assert_close(g, w, rtol=1e-3, atol=1e-4)


@chunkwise
@pytest.mark.parametrize("make", [
    lambda: Listed(4, 4), compiled_in_place, lambda: torch.jit.script(nn.Linear(4, 4)),
    lambda: torch.compile(nn.Linear(4, 4), backend="eager"),
], ids=["listed", "compiled in place", "scripted", "compiled"])  # fmt: skip
def test_parameters_that_a_module_reaches_by_another_way(memory, make):
    layer = make()
    model = IRevStack([layer, IRevBlock(4, 3), layer, nn.Linear(4, 4)], batch_first=False)
    wanted = gradients(model, draw(), "recompute")
    assert_same(gradients(model, draw(), memory), wanted)
    layer.weight.register_hook(torch.neg)
    wanted = gradients(model, draw(), "recompute")
    assert_same(gradients(model, draw(), memory), wanted)


@chunkwise
@pytest.mark.parametrize("kind", [nn.Dropout, nn.ELU])
def test_a_module_that_writes_to_the_input_is_refused(memory, kind):
    module = kind(inplace=True)
    model = IRevStack([module, IRevBlock(4, 3)], memory, batch_first=False)
    with pytest.raises(ValueError, match="changes the input in place while .* but memory="):
        model(draw())
    with torch.no_grad():
        model(draw())
    above = IRevStack([nn.Linear(4, 4), module, IRevBlock(4, 3)], batch_first=False).eval()
    wanted = gradients(above, draw(), "recompute")
    assert_same(gradients(above, draw(), memory), wanted)


@chunkwise
def test_a_stack_made_in_inference_mode(memory):
    """Its buffers do not count how often they were written to."""
    with torch.inference_mode():
        model = IRevStack([IRevBlock(4, 3, forgets=False)], memory)
        inside, _ = model(draw())
    with torch.no_grad():
        assert torch.equal(model(draw())[0], inside)


class Picking(nn.Module):
    """A module with a parameter of integers."""

    def __init__(self):
        super().__init__()
        self.order = nn.Parameter(torch.tensor([2, 0, 1, 3]), requires_grad=False)

    def forward(self, x):
        return x[..., self.order]


@chunkwise
def test_integers_and_frozen_parameters(memory):
    model = IRevStack([Picking(), IRevBlock(4, 3), nn.Linear(4, 4)], batch_first=False)
    model.blocks[2].requires_grad_(False)
    model.blocks[1].scale.requires_grad_(False)
    wanted = gradients(model, draw(), "recompute")
    assert_same(gradients(model, draw(), memory), wanted)
    model.requires_grad_(False)
    x = draw().requires_grad_()
    assert model(x)[0].sum().backward() is None and x.grad.isfinite().all()


@chunkwise
def test_a_batch_of_gradients_is_refused(memory):
    model = IRevRNN(4, 3, activation="identity", memory=memory)
    with pytest.raises(NotImplementedError, match=f"'{memory}' does not go with a batch of"):
        torch.autograd.functional.jacobian(lambda x: model(x)[0].sum(0), draw(3), vectorize=True)


@pytest.mark.parametrize("memory", ["checkpoint", "reversible", "auto"])
def test_a_lazy_module_must_be_initialised(memory):
    budget = "1GB" if memory == "auto" else None
    model = IRevStack([nn.LazyLinear(4), IRevBlock(4, 3)], memory, budget)
    with pytest.raises(ValueError, match=r"nn.LazyLinear, from the start; run the model once"):
        model(draw())
    with torch.no_grad():
        model.memory = "recompute"
        model(draw())
    model.memory = memory
    model(draw())[0].sum().backward()


class Masked(nn.Module):
    """A module with a buffer that it is multiplied by."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mask", torch.ones(4))

    def forward(self, x):
        return x * self.mask


def make_masked():
    torch.manual_seed(0)
    return IRevStack([nn.Linear(4, 4), Masked(), IRevBlock(4, 3)], batch_first=False)


@chunkwise
def test_a_buffer_that_was_written_to_is_found(memory):
    model = make_masked()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        gradients(model, draw(), memory, lambda: model.blocks[1].mask.mul_(3))


class Tied(nn.Module):
    """A module that uses the weight of a layer outside of the stack."""

    def __init__(self, layer):
        super().__init__()
        self.layers = [layer]

    def forward(self, x):
        return x @ self.layers[0].weight


@chunkwise
def test_a_gradient_that_would_be_lost_is_refused(memory):
    outside, computed = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
    source = computed.weight
    del computed.weight
    computed.weight = 2 * source
    for module in (Tied(outside), computed):
        model = IRevStack([module, IRevBlock(4, 3)], memory, batch_first=False)
        output, _ = model(draw())
        with pytest.raises(ValueError, match=r"of shape \(4, 4\) that requires a gradient"):
            output.sum().backward()
    outside.requires_grad_(False)
    model = IRevStack([Tied(outside), IRevBlock(4, 3)], batch_first=False)
    assert_same(gradients(model, draw(), memory), gradients(model, draw(), "recompute"))


class Counting(nn.Module):
    """A module that gives something else each time."""

    count = 0

    def forward(self, x):
        self.count += 1
        return x * self.count


class Drawing(nn.Module):
    """A module with a generator of its own."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)

    def forward(self, x):
        return x + torch.rand(x.shape, generator=self.generator)


@pytest.mark.parametrize("return_sequence", [True, False])
@pytest.mark.parametrize("lengths", [None, [150, 70]])
@pytest.mark.parametrize("make", [Counting, Drawing, lambda: nn.Linear(4, 4)])
def test_what_changes_behind_the_last_recurrence_is_found(make, lengths, return_sequence):
    model = IRevStack([IRevBlock(4, 3), make()], "reversible")
    x = draw().transpose(0, 1)
    output, _ = model(x, lengths=lengths, return_sequence=return_sequence)
    for p in model.blocks[1].parameters():
        p.data.mul_(3)  # unseen by version counters
    with pytest.raises(ReversalError, match="above the recurrence of block 0 .*: the outputs"):
        output.sum().backward()
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("backend", ["auto", "cpp"])
@pytest.mark.parametrize("step", [0, 1, 100, 149])
def test_a_reset_hides_no_change(monkeypatch, backend, step):
    monkeypatch.setenv("IREVRNN_BACKEND", backend)
    blocks = [IRevBlock(4, 3, forgets=False) for _ in range(2)]
    model = IRevStack([Counting(), *blocks], "reversible", batch_first=False)
    resets = torch.zeros(150, 2, dtype=torch.bool)
    resets[step] = True
    output, _ = model(draw(), resets=resets)
    with pytest.raises(ReversalError, match=r"block \d \(IRevBlock\), chunk 0"):
        output.sum().backward()


def make_gated():
    torch.manual_seed(3)
    # At these sizes the compiled operators round in another way than the modules.
    blocks = [IRevBlock(64, 64, dropout=0.1) for _ in range(3)]
    return IRevStack([nn.Linear(4, 64), *blocks], "reversible")


@pytest.mark.parametrize("observed", ["forward", "backward", "both"])
def test_flops_of_one_pass_may_be_counted(observed):
    """Counting takes other operators, and with the passes it must not change."""
    model = make_gated()
    with FlopCounterMode(display=False) if observed != "backward" else nullcontext():
        output, _ = model(draw())
    with FlopCounterMode(display=False) if observed != "forward" else nullcontext():
        output.square().mean().backward()
    assert all(p.grad is not None for p in model.parameters())


@chunkwise
@pytest.mark.parametrize(("change", "message"), [
    (lambda model: model.eval(), "switched by train"),
    (lambda model: model.blocks[1].requires_grad_(False), "does not require grad"),
    (lambda model: prune.identity(model.blocks[1][0], "weight"), ""),
])  # fmt: skip
def test_what_changes_between_the_passes_is_an_error(memory, change, message):
    model = IRevStack([IRevBlock(4, 3), nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))], memory)
    output, _ = model(draw().requires_grad_())
    change(model)
    with pytest.raises(RuntimeError, match=message):
        output.sum().backward()


def test_selective_checkpointing_around_a_stack():
    model = make_gated().eval()
    keep = partial(create_selective_checkpoint_contexts, [torch.ops.aten.mm.default])
    run = partial(checkpoint, model, draw(), use_reentrant=False, context_fn=keep)
    run()[0].square().mean().backward()
    got = [p.grad for p in model.parameters()]
    assert_same(got, gradients(make_gated().eval(), draw(), "reversible"))


@chunkwise
def test_a_traced_stack_is_refused(memory):
    model = IRevStack([IRevBlock(4, 3), IRevBlock(4, 3)], memory)
    # Without gradients, reversal has nothing to do: floating point takes its place.
    for context in (nullcontext(), *([torch.no_grad()] if memory == "checkpoint" else [])):
        with context, pytest.raises(NotImplementedError, match=r"use torch.export.*'recompute'"):
            torch.jit.trace(model, draw())


@chunkwise
def test_weights_that_are_cached_are_refused(memory):
    layer = parametrizations.weight_norm(nn.Linear(4, 4))
    model = IRevStack([layer, IRevBlock(4, 3)], memory, batch_first=False)
    with (
        parametrize.cached(),
        pytest.raises(ValueError, match=r"not go with .*cached\(\), as block 0 \(Parametrized"),
    ):
        model(draw())
    assert_same(gradients(model, draw(), memory), gradients(model, draw(), "recompute"))


@chunkwise
def test_a_parameter_that_is_not_used_has_no_gradient(memory):
    model = IRevStack([IRevBlock(4, 3)], batch_first=False)
    model.blocks[0].unused = nn.Parameter(torch.ones(2))
    gradients(model, draw(), memory)
    assert model.blocks[0].unused.grad is None


class _Checkpointed(Block):
    def __init__(self, dropout):
        super().__init__(3)
        self.inner = nn.Linear(4, 3)
        self.outer = nn.Sequential(nn.Linear(3, 4), dropout)

    def project(self, x):
        return self.inner(x)

    def output(self, x, h):
        return x + checkpoint(self.outer, h, use_reentrant=False) ** 2


@pytest.mark.parametrize("memory", ["recompute", "checkpoint"])
def test_dropout_that_something_else_computes_again(memory):
    x = torch.randn(2, 40, 4)
    IRevStack([_Checkpointed(nn.Dropout(0.5))], memory)(x)[0].sum().backward()
    output, _ = IRevStack([_Checkpointed(Dropout(0.5))], memory)(x)
    with pytest.raises(RuntimeError, match=r"torch\.utils\.checkpoint .* use nn\.Dropout there"):
        output.sum().backward()
    outside = nn.Sequential(nn.Linear(4, 4), Dropout(0.5))
    checkpoint(outside, x, use_reentrant=False).sum().backward()


def test_dropout_that_some_chunks_skip():
    class Sometimes(nn.Module):
        def __init__(self):
            super().__init__()
            self.dropout, self.calls = Dropout(0.5), 0

        def forward(self, x):
            self.calls += 1
            return self.dropout(x) if self.calls > 1 else x

    model = IRevStack([Sometimes(), IRevBlock(4, 3)], "checkpoint", "10kB")
    model._choose = lambda *_: Plan("checkpoint", 16)
    with pytest.raises(RuntimeError, match="met an irevrnn.Dropout that the first one did not"):
        model(torch.randn(2, 64, 4))


class _Reshaped(nn.Module):
    """Drop features while they have other dimensions."""

    def __init__(self, *shape):
        super().__init__()
        self.dropout, self.shape = Dropout(0.5), shape

    def forward(self, x):
        return self.dropout(x.view(*x.shape[:-1], *self.shape)).view_as(x)


@pytest.mark.parametrize("lengths", [None, [40, 30]])
def test_dropout_of_heads_is_that_of_features(lengths):
    """Also with as many heads as sequences, along which a mask could be spread."""
    results = []
    for shape in ((8,), (2, 4), (4, 2)):
        torch.manual_seed(0)
        model = IRevStack([_Reshaped(*shape), IRevBlock(8, 3)], "checkpoint")
        model._choose = lambda *_: Plan("checkpoint", 16)
        x = torch.ones(2, 40, 8, requires_grad=True)
        output, _ = model(x, lengths=lengths)
        results.append([output, *torch.autograd.grad(output.square().sum(), x)])
    for other in results[1:]:
        assert_same_bits(results[0], other)


def test_dropout_of_another_order_of_dimensions_is_refused():
    class Flat(_Reshaped):
        def forward(self, x):
            return self.dropout(x.flatten(0, 1)).view_as(x)

    model = IRevStack([Flat(), IRevBlock(8, 3)])
    with pytest.raises(ValueError, match=r"must read shape \(40, 2, \.\.\.\).*; got \(80, 8\)"):
        model(torch.ones(2, 40, 8))


@pytest.mark.parametrize("memory", ["recompute", "checkpoint"])
def test_a_pruned_block_trains(memory):
    """Its weights are computed by a hook, which runs though a stack does not call the block."""
    block = IRevBlock(4, 3)
    prune.l1_unstructured(block, "scale", 1)
    prune.l1_unstructured(block, "recurrent_weight", 1)
    model = IRevStack([block], batch_first=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(2):
        gradients(model, draw(), memory)
        optimizer.step()
    model(draw())
    assert torch.equal(block.scale, block.scale_orig * block.scale_mask)


def test_a_batch_of_gradients_of_a_large_layer():
    model, x = IRevRNN(4, 128), torch.randn(8, 2048, 4, requires_grad=True)
    y, _ = model(x)
    upstream = torch.randn(2, *y.shape)
    (batched,) = torch.autograd.grad(y, x, upstream, retain_graph=True, is_grads_batched=True)
    for got, one in zip(batched, upstream, strict=True):
        torch.testing.assert_close(got, *torch.autograd.grad(y, x, one, retain_graph=True))
