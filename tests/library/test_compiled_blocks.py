"""Gated blocks by one operator for each chunk: against their modules, in float64."""

import copy
import weakref

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from irevrnn import Block, IRevBlock, IRevStack, ReversalError
from irevrnn.recurrences.compiled_blocks import CompiledBlocks, form_of
from irevrnn.strategies.stack import Stack
from tests.cases import assert_same_bits, assert_same_with_any_threads

pytestmark = pytest.mark.usefixtures("kernels")
CHUNKED = ["checkpoint", "reversible", "store_fixed"]
OPTIONS = [
    {}, {"forgets": False}, {"norm": None}, {"residual": False}, {"bias": False},
    {"num_couplings": 0, "longest_period": None}, {"num_couplings": 3},
    {"activation": "leaky_relu"}, {"activation": "relu"}, {"coupling_activation": "tanh"},
    {"coupling_activation": "leaky_relu"}, {"learn_initial_state": True}, {"input_gate": True},
]  # fmt: skip
#: Of blocks whose input chooses.
SELECTIVE = [
    {"turns": "input"}, {"turns": "input", "forgets": False}, {"forgets": "input"},
    {"turns": "input", "forgets": "input"}, {"turns": "input", "input_gate": True, "norm": None},
    {"forgets": "input", "input_gate": True, "learn_initial_state": True},
    {"turns": "input", "forgets": "input", "input_gate": True, "bias": False, "residual": False},
]  # fmt: skip
SIZES = [(8, 6, 1), (1, 3, 2), (33, 17, 3), (16, 64, 2), (70, 130, 1)]


@pytest.fixture(autouse=True)
def _short_chunks(monkeypatch):
    monkeypatch.setattr("irevrnn.modules.base_stack.chunk_length", lambda *_: 32)


def make_stack(memory, width=8, hidden=6, blocks=3, **options):
    torch.manual_seed(width + hidden)
    model = IRevStack(
        [nn.Linear(2, width), *(IRevBlock(width, hidden, **options) for _ in range(blocks))], memory
    )
    with torch.no_grad():
        for name, p in model.named_parameters():  # with other couplings, states may grow
            p.add_(0.1 * torch.randn_like(p) * ("coupling" not in name))
    model.clip_recurrent_weights_()
    return model


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


def derived(model, x, hidden=None, **keywords):
    """Output, last states, and gradients of the input, the states and the parameters."""
    x = x.detach().requires_grad_()
    hidden = hidden and tuple(s.detach().requires_grad_() for s in hidden)
    y, (h, c) = model(x, hidden, **keywords)
    y = y.data if hasattr(y, "batch_sizes") else y
    loss = y.sin().sum() + h.cos().sum() + (2 * c).cos().sum()
    if model._stack().recurrences[-1].block.activation == "identity":
        loss = loss + 0.1 * model.stored_bits()
    leaves = [x, *(hidden or ()), *model.parameters()]
    return [y.detach(), h.detach(), c.detach(), *torch.autograd.grad(loss, leaves)]


def assert_near_modules(monkeypatch, model, x, hidden=None, **keywords):
    """No more than some times the error of the modules, with the same strategy."""
    exact = copy.deepcopy(model).double()
    exact.memory = "recompute"
    double = hidden and tuple(s.double() for s in hidden)
    wanted = derived(exact, x.double(), double, **keywords)
    assert all(form_of(r) is not None for r in model._stack().recurrences)
    ours = derived(model, x, hidden, **keywords)
    monkeypatch.setattr(IRevBlock, "can_compile", lambda _: False)
    modules = derived(model, x, hidden, **keywords)
    for a, b, goal in zip(ours, modules, wanted, strict=True):
        if not goal.numel():  # of no couplings
            continue
        error = (b - goal).abs().max().item()
        size = 1 + goal.abs().max().item()
        torch.testing.assert_close(a.double(), goal, rtol=0, atol=4 * error + 2e-5 * size)


@pytest.mark.parametrize("memory", CHUNKED)
@pytest.mark.parametrize("options", OPTIONS + SELECTIVE, ids=str)
def test_every_option(monkeypatch, memory, options):
    states = None if options.get("learn_initial_state") else (draw(3, 2, 6), draw(3, 2, 6).flip(0))
    assert_near_modules(monkeypatch, make_stack(memory, **options), draw(2, 100, 2), states)


@pytest.mark.parametrize("memory", CHUNKED[:2])
@pytest.mark.parametrize(("steps", "batch"), [(1, 1), (5, 3), (64, 2), (33, 40)])
@pytest.mark.parametrize("options", [{}, SELECTIVE[-1]], ids=str)
@pytest.mark.parametrize(("width", "hidden", "blocks"), SIZES)
def test_shapes(monkeypatch, memory, width, hidden, blocks, options, steps, batch):
    model = make_stack(memory, width, hidden, blocks, **options)
    assert_near_modules(monkeypatch, model, draw(batch, steps, 2))


@pytest.mark.parametrize("memory", CHUNKED)
def test_last_output_lengths_and_resets(monkeypatch, memory):
    model, x = make_stack(memory), draw(3, 70, 2)
    resets = torch.rand(3, 70, generator=torch.Generator().manual_seed(0)) < 0.05
    for keywords in (
        {"return_sequence": False}, {"lengths": [70, 5, 33]}, {"resets": resets},
        {"lengths": [2, 70, 64], "return_sequence": False, "resets": resets},
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            assert_near_modules(patch, model, x, **keywords)


def test_other_modules_stand_between(monkeypatch):
    """Blocks of one form run together; the rest runs as it did."""

    def make(memory):
        torch.manual_seed(0)
        shared = IRevBlock(6, 6)
        return IRevStack([
            nn.Linear(2, 6), shared, IRevBlock(6, 5), nn.Tanh(), IRevBlock(6, 5),
            IRevBlock(6, 5, turns="input"), IRevBlock(6, 5, gate=False), shared, nn.Linear(6, 3),
        ], memory)  # fmt: skip

    stack = make("reversible")._stack().compiled(last_only=False)
    kinds = [type(each).__name__ for each in stack.modules]
    assert kinds == [
        "Linear",
        *2 * ["ModuleList"],
        "Tanh",
        *2 * ["ModuleList"],
        "IRevBlock",
        "ModuleList",
        "Linear",
    ]

    def results(memory):
        model = make(memory)
        y, (h, c) = model(draw(2, 90, 2))
        loss = y.sin().sum() + sum(s.sum() for s in (*h, *c))
        return torch.autograd.grad(loss, list(model.parameters()))

    wanted = results("recompute")
    for memory in CHUNKED:
        for got, other in zip(results(memory), wanted, strict=True):
            torch.testing.assert_close(got, other, rtol=1e-3, atol=1e-3)


def test_reversal_gives_the_bits_of_stored_states_over_a_training():
    trained = {}
    for memory in CHUNKED[1:]:
        model = make_stack(memory)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for step in range(20):
            x = torch.randn(4, 100, 2, generator=torch.Generator().manual_seed(step))
            output, _ = model(x)
            optimizer.zero_grad()
            (output - x.sum(-1, keepdim=True).cumsum(1)).square().mean().backward()
            optimizer.step()
            model.clip_recurrent_weights_()
        trained[memory] = [p.detach() for p in model.parameters()]
    assert_same_bits(trained["reversible"], trained["store_fixed"])


@pytest.mark.parametrize("options", [{}, SELECTIVE[-1]], ids=str)
@pytest.mark.parametrize("memory", CHUNKED[:2])
def test_any_number_of_threads_gives_the_same_bits(memory, options):
    """Without a library's product."""
    model = IRevStack([IRevBlock(33, 40, **options), IRevBlock(33, 40, **options)], memory)
    x = draw(64, 70, 33)
    assert_same_with_any_threads(lambda: derived(model, x))


@pytest.mark.parametrize("options", [{}, SELECTIVE[4]], ids=str)
def test_a_changed_weight_is_noticed(options):
    """The control: what is computed again depends on every parameter."""
    for name, _ in make_stack("reversible", **options).named_parameters():
        if "blocks.3.output" in name or "blocks.0" in name:  # nothing above reads it, or a library
            continue
        model = make_stack("reversible", **options)
        output, _ = model(draw(2, 100, 2))
        parameter = model.get_parameter(name)
        parameter.data.add_(1e-3)
        parameter.data.clamp_(max=1)
        with pytest.raises(ReversalError):
            output.sum().backward()


def test_frozen_parameters_take_no_gradient():
    names = "weight", "bias", "scale", "norm", "projection", "coupling", "gate", "angle"
    for frozen in names:
        options = SELECTIVE[3] if frozen in names[-2:] else {}
        model, free = make_stack("reversible", **options), make_stack("reversible", **options)
        for name, p in model.named_parameters():
            p.requires_grad_(frozen not in name)
        x = draw(2, 70, 2)
        for each in (model, free):
            each(x)[0].sin().sum().backward()
        for (name, p), other in zip(model.named_parameters(), free.parameters(), strict=True):
            assert (p.grad is None) == (frozen in name)
            if p.grad is not None:
                torch.testing.assert_close(p.grad, other.grad)


def hooked(block):
    block.norm.register_forward_hook(lambda *_: None)


def overridden(block):
    block.project = lambda x: IRevBlock.project(block, x)


def pruned(block):
    prune.l1_unstructured(block.input_projection, "weight", 0.5)


def transposed(block):
    block.input_projection.weight = nn.Parameter(torch.randn(8, 6).t())


CHANGES = [
    "hook", "method", "pruning", "parametrization", "layer", "norm", "dropout", "dtype", "strides",
]  # fmt: skip


@pytest.mark.parametrize("change", [
    hooked, overridden, pruned,
    lambda block: nn.utils.parametrizations.weight_norm(block.output_projection),
    lambda block: setattr(block, "output_projection", nn.Linear(6, 16)),
    lambda block: setattr(block, "norm", nn.RMSNorm(8)),
    lambda block: setattr(block.dropout, "p", 0.5),
    lambda block: block.double(),
    transposed,
], ids=CHANGES)  # fmt: skip
def test_what_users_put_into_a_block_runs(change):
    block = IRevBlock(8, 6)
    assert form_of(Stack([block]).recurrences[0]) is not None
    change(block)
    assert form_of(Stack([block]).recurrences[0]) is None


def test_blocks_of_ones_own_run_as_modules():
    class Own(IRevBlock):
        def output(self, x, h):
            return x + h @ torch.ones(6, 8)

    assert not Own(8, 6).can_compile()
    assert form_of(Stack([Block(4)]).recurrences[0]) is None
    assert not IRevBlock(8, 6, gate=False).can_compile()
    block = IRevBlock(8, 6, turns="input")
    block.angle_gate = nn.Linear(8, 6)
    assert not block.can_compile()


def test_an_error_names_the_block_and_the_step():
    model = make_stack("reversible", norm=None, forgets=False)
    x = draw(1, 70, 2)
    x[0, 50] = torch.nan
    with pytest.raises(OverflowError, match=r"block 1 \(IRevBlock\), step 50: a value is NaN"):
        model(x)


def test_inputs_of_another_dtype_are_refused():
    model = IRevStack([nn.Embedding(5, 8).double(), IRevBlock(8, 6)], "checkpoint")
    with pytest.raises(ValueError, match="x must be float32"):
        model(torch.zeros(1, 4, dtype=torch.long))


def test_the_graph_of_a_chunk_is_released_before_the_next_chunk_runs(monkeypatch):
    inverse, with_gradient = CompiledBlocks.inverse_exact, CompiledBlocks.with_gradient
    graphs, living = [], []

    def inverse_exact(self, *arguments):
        living.append([graph() for graph in graphs if graph() is not None])
        return inverse(self, *arguments)

    def keeping(self, result, *arguments):
        graphs.append(weakref.ref(result.saved[1].untyped_storage()))  # h of the lowest block
        return with_gradient(self, result, *arguments)

    monkeypatch.setattr(CompiledBlocks, "inverse_exact", inverse_exact)
    monkeypatch.setattr(CompiledBlocks, "with_gradient", keeping)
    make_stack("reversible")(torch.randn(2, 96, 2))[0].sum().backward()
    assert len(graphs) == 3 and not any(living)
