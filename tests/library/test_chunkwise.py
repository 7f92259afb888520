"""The strategies of the whole stack."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks

from irevrnn import IRevBlock, IRevRNN, IRevStack, ReversalError
from irevrnn.kernels.activations import ACTIVATIONS, NEGATIVE_SLOPE, get_activation
from irevrnn.kernels.ops import SEGMENT
from irevrnn.recurrences.block import FORGOTTEN_BITS
from irevrnn.recurrences.fixed_point import Numbers
from irevrnn.strategies.strategy import Plan, chunk_length
from tests import fixed_reference
from tests.cases import assert_same_bits

pytestmark = pytest.mark.usefixtures("kernels")
CHUNKED = ["checkpoint", "reversible", "store_fixed"]
all_chunked = pytest.mark.parametrize("memory", CHUNKED)
every_strategy = pytest.mark.parametrize("memory", ["store", "recompute", *CHUNKED])
STEPS = 90
CHUNK = 40


@pytest.fixture(autouse=True)
def _short_chunks(monkeypatch):
    """Several chunks, the last of them short, in a sequence that tests can afford."""
    monkeypatch.setattr("irevrnn.modules.base_stack.chunk_length", lambda *_: CHUNK)


def test_chunks_are_as_long_as_their_strategy_asks():
    length = partial(chunk_length, compiled=False)
    lengths = {steps: length("checkpoint", steps, 32, 128) for steps in (10, 784, 10**6)}
    assert lengths == {10: 64, 784: 64, 10**6: 1000}
    assert length("checkpoint", 784, 1, 64) == length("reversible", 784, 1, 64) == 1024
    assert length("reversible", 784, 32, 128) == length("reversible", 10**6, 32, 128)


def test_chunks_are_shorter_where_operators_take_them_at_once():
    length = partial(chunk_length, "reversible", 10**6, hidden=64, compiled=True)
    assert [length(batch=batch) for batch in (1, 16, 64)] == [72, 48, 48]
    assert length(batch=1, numbers=2**18) == 4096  # with a budget that allows it


def make_model(memory="reversible", dtype=torch.float64, features=3, layers=2, **keywords):
    torch.manual_seed(0)
    keywords = {"activation": "leaky_relu", "norm": "layer", "num_couplings": 2, **keywords}
    model = IRevRNN(features, 7, layers, memory=memory, dtype=dtype, **keywords)
    # Nothing bounds a state that is coupled through leaky_relu, so couple it little.
    scale = 0.3 if model.coupling_activation == "tanh" else 0.03
    with torch.no_grad():
        for layer in model.layers:
            layer.coupling_a.normal_(0, scale)
            layer.coupling_b.normal_(0, scale)
            layer.recurrent_weight[:3] = torch.tensor([1.0, -1.0, -0.6])
    return model


def make_input(dtype=torch.float64, features=3, batch=4, layers=2):
    """An input and a hidden state, in the layout of the defaults, which require gradients."""
    generator = torch.Generator().manual_seed(1)
    shapes = (batch, STEPS, features), (layers, batch, 7), (layers, batch, 7)
    drawn = [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes]
    x, h_0, c_0 = (tensor.requires_grad_() for tensor in drawn)
    return x, (h_0, c_0)


def loss_of(output, states):
    """A loss that every step and every final state has a part in."""
    weights = torch.linspace(0.5, 1.5, output.numel(), dtype=output.dtype).view_as(output)
    h_n, c_n = states
    return (weights * output.sin()).sum() + h_n.square().sum() + (2 * c_n).sin().sum()


def outcome(run, model, x, hidden=None, **keywords):
    """Outputs, then gradients of input, states and parameters."""
    output, states = run(x, hidden, **keywords)
    leaves = [x, *(hidden or ()), *model.parameters()]
    gradients = torch.autograd.grad(
        loss_of(output, states), leaves, allow_unused=True, materialize_grads=True
    )
    return [t.detach() for t in (output, *states)], gradients


def assert_near(actual, wanted, tolerance):
    for got, want in zip(actual, wanted, strict=True):
        assert got.shape == want.shape
        assert (got - want).norm() <= tolerance * want.norm()


@pytest.mark.parametrize("keywords", [
    *({"activation": name} for name in ACTIVATIONS), {"norm": None}, {"residual": True},
    {"residual": True, "dropout": 0.4, "layers": 3}, {"num_couplings": 0}, {"bias": False},
    {"coupling_activation": "leaky_relu"},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("return_sequence", [True, False])
def test_checkpoint_equals_recompute(keywords, return_sequence):
    x, hidden = make_input(layers=keywords.get("layers", 2))
    results = []
    for memory in ("checkpoint", "recompute"):
        model = make_model(memory, **keywords)
        torch.manual_seed(3)  # the dropout mask
        results.append(outcome(model, model, x, hidden, return_sequence=return_sequence))
    (outputs, gradients), (wanted_outputs, wanted_gradients) = results
    assert_same_bits(outputs, wanted_outputs)
    assert_near(gradients, wanted_gradients, 1e-12)


class StraightThrough(torch.autograd.Function):
    """A value with the gradient of another."""

    @staticmethod
    def forward(ctx, smooth, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


class ExactForward:
    """A layer whose states are exact integers, beside floats that carry the gradient.

    These are tied to the integers where the gradient is given them: h after every step, and c where
    a segment begins.
    """

    def __init__(self, layer, activation, f, h, c):
        self.weights = layer.recurrent_weight, layer.coupling_a, layer.coupling_b
        self.activation, self.f = activation, f
        self.stack = fixed_reference.Stack(self.weights[0], h.shape[0])
        self.numbers, self.c = Numbers.of(h.detach(), c.detach()), c
        self.h = StraightThrough.apply(h, self.values()[0])

    def values(self):
        return self.numbers.values(self.weights[0].dtype)

    def step(self, z, t):
        """Take step t of a chunk, whose z from then on is given."""
        weights = [weight.detach() for weight in self.weights]
        self.numbers = fixed_reference.prepare(
            z.detach(), self.numbers, *weights, self.stack, self.f, None, t
        )
        if t % SEGMENT == 0:
            self.c = StraightThrough.apply(self.c, self.values()[1])
        u, a, b = self.weights
        f = get_activation(self.f).function
        p = u * self.h
        for a_i, b_i in zip(a, b, strict=True):
            self.c = self.c + a_i * f(p)
            p = p + b_i * f(self.c)
        self.numbers = fixed_reference.step(
            z[0].detach(), self.numbers, *weights, self.stack, self.activation, self.f
        )
        slopes = {"identity": 1.0, "leaky_relu": NEGATIVE_SLOPE, "relu": 0.0}
        h = self.values()[0]
        slope = torch.where(h > 0, 1.0, slopes[self.activation]).to(z.dtype)
        self.h = StraightThrough.apply(slope * (z[0] + p), h)
        return self.h

    def run(self, z):
        chunks = z.split(CHUNK)
        return torch.stack([self.step(chunk[t:], t) for chunk in chunks for t in range(len(chunk))])


def exact_forward(model, x, hidden, return_sequence=True):
    """The stack of ``reversible`` under plain autograd."""
    y, finals = x.transpose(0, 1), []
    for index, layer in enumerate(model.layers):
        z = layer(y)
        cell = ExactForward(
            layer, model.activation, model.coupling_activation, hidden[0][index], hidden[1][index]
        )
        out = cell.run(z)
        finals.append((cell.h, StraightThrough.apply(cell.c, cell.values()[1])))
        y = out + y if model.residual and out.shape == y.shape else out
    h_n, c_n = (torch.stack(states) for states in zip(*finals, strict=True))
    return (y.transpose(0, 1) if return_sequence else y[-1]), (h_n, c_n)


@pytest.mark.parametrize("activation", FORGOTTEN_BITS)
@pytest.mark.parametrize(("backend", "dtype", "options"), [
    *(("auto", torch.float64, options) for options in (
        {}, {"norm": None}, {"residual": True, "layers": 3}, {"num_couplings": 0},
        {"coupling_activation": "leaky_relu"},
    )),
    # An f whose rounding is the same everywhere, so that both forwards are one.
    *((backend, torch.float32, {"coupling_activation": "leaky_relu", "norm": None})
      for backend in ("auto", "cpp")),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("return_sequence", [True, False])
def test_reversible_gradient_is_that_of_the_exact_forward(
    monkeypatch, backend, dtype, activation, options, return_sequence
):
    monkeypatch.setenv("IREVRNN_BACKEND", backend)
    model = make_model(dtype=dtype, activation=activation, **options)
    x, hidden = make_input(dtype, layers=model.num_layers)
    call = {"return_sequence": return_sequence}
    wanted = outcome(lambda *a, **k: exact_forward(model, *a, **k), model, x, hidden, **call)
    got, exact = outcome(model, model, x, hidden, **call), dtype == torch.float64
    assert_near(got[0], wanted[0], 0 if exact else 1e-6)
    assert_near(got[1], wanted[1], 1e-12 if exact else 1e-6)


@all_chunked
def test_a_partial_loss(memory):
    """An output that the loss leaves out has a gradient of zero."""
    model = make_model(memory)
    x, hidden = make_input()
    for pick in (lambda y, s: y.sum(), lambda y, s: s[0].sum(), lambda y, s: s[1][0].sum()):
        got = torch.autograd.grad(pick(*model(x, hidden)), [x, *hidden])
        y, s = model(x, hidden)
        zero = 0 * (y.sum() + s[0].sum() + s[1].sum())
        wanted = torch.autograd.grad(pick(y, s) + zero, [x, *hidden])
        assert_same_bits(got, wanted)


# Bad input


@pytest.mark.parametrize("value", [1e7, math.nan, math.inf])
def test_a_value_out_of_range_names_layer_and_step(value):
    model = make_model(norm=None, coupling_activation="tanh")
    x = make_input()[0].detach()
    x[2, 53] = value
    nn.init.ones_(model.layers[0].projection.weight)
    with pytest.raises(OverflowError, match="layer 0, step 53: .*norm='layer'.*clip_recur"):
        model(x)
    nn.init.zeros_(model.layers[0].projection.weight)
    nn.init.constant_(model.layers[1].projection.bias, 1e7)
    with pytest.raises(OverflowError, match="layer [01], step"):
        model(x)
    h_0 = torch.tensor([0.0, value])[:, None, None].expand(2, len(x), 7).double()
    with pytest.raises(OverflowError, match="layer 1, initial state: a value is NaN or left"):
        model(x, (h_0, torch.zeros_like(h_0)))


def test_reversal_needs_the_kernels(monkeypatch):
    monkeypatch.setenv("IREVRNN_BACKEND", "python")
    with pytest.raises(RuntimeError, match="'reversible' .* need the compiled kernels"):
        make_model()(make_input()[0])


@all_chunked
def test_batch_statistics_are_refused(memory):
    model = make_model(memory, norm="batch")
    x, _ = make_input()
    with pytest.raises(
        ValueError, match=f"memory='{memory}' cannot run with the batch norm of layer 0"
    ):
        model(x)
    model.eval()(x)[0].sum().backward()
    model.layers[1].norm = nn.BatchNorm1d(7, track_running_stats=False).eval()
    with pytest.raises(ValueError, match="cannot run with the batch norm of layer 1"):
        model(x)


@pytest.mark.parametrize("value", [1 + 1e-9, 1 + 1e-7, -2.0, math.nan])
def test_a_recurrent_weight_outside_is_refused(value):
    model = make_model()
    model.layers[1].recurrent_weight.data[4] = value
    with pytest.raises(ValueError, match=r"layer 1: recurrent weights must lie in \[-1, 1\]"):
        model(make_input()[0])


# Faults between the forward and the backward pass


def saved_tensors(model, x, change):
    """Output of a run whose saved tensors, in order, ``change`` may replace as they come back."""
    count = iter(range(10**6))
    with saved_tensors_hooks(lambda t: (next(count), t), lambda kept: change(*kept)):
        output, _ = model(x)
    return output, next(count)


STATES, STACKS = ["h", "c", "scales", "partial_words", "places"], ["words", "counts"]


@pytest.mark.parametrize("which", ["hashes", "outputs", *STATES, *STACKS])
def test_a_held_tensor_that_was_tampered_with(which):
    model = make_model()
    x, _ = make_input()
    names = [*STATES, *STATES, "hashes", "outputs", *STACKS, *STACKS]
    untouched, count = saved_tensors(model, x, lambda _, t: t.clone())
    untouched.sum().backward()  # a control
    wanted = count - len(names) + names.index(which)

    def tamper(index, tensor):
        if index != wanted:
            return tensor
        tensor = tensor.clone()
        tensor.view(-1)[0 if which == "hashes" else -1] ^= 1  # hashes are padded
        return tensor

    output, _ = saved_tensors(model, x, tamper)
    where = "above .* layer 1: the outputs" if which == "outputs" else r"layer \d, chunk \d"
    with pytest.raises(ReversalError, match=where):
        output.sum().backward()


@all_chunked
@pytest.mark.parametrize("what", ["input", "projection.weight", "recurrent_weight", "coupling_b"])
def test_a_change_in_place_is_seen_by_autograd(memory, what):
    model = make_model(memory)
    x, _ = make_input()
    output, _ = model(x)
    with torch.no_grad():
        (x if what == "input" else model.layers[1].get_parameter(what)).mul_(0.9)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


@pytest.mark.parametrize("norm", [None, "layer"])
@pytest.mark.parametrize("layer", [0, 1])
def test_a_change_that_autograd_cannot_see(layer, norm):
    names = [name for name, _ in make_model(norm=norm).layers[layer].named_parameters()]
    for name in ("input", *names):
        model = make_model(norm=norm)
        x, _ = make_input()
        output, _ = model(x)
        tensor = x if name == "input" else model.layers[layer].get_parameter(name)
        tensor.data.sub_(0.01 * torch.rand_like(tensor))
        with pytest.raises((ReversalError, ValueError), match=r"layer \d"):
            output.sum().backward()
        assert all(p.grad is None for p in model.parameters())


def test_a_change_is_found_where_hashes_are_of_every_few_chunks():
    model = IRevStack([IRevBlock(1, 2, norm=None)], "reversible")
    model._choose = lambda *_: Plan("reversible", 16)  # 188 chunks, of which 63 have one
    output, _ = model(torch.randn(1, 3000, 1))
    model.blocks[0].coupling_a.data[0, 0] += 1e-3
    with pytest.raises(ReversalError, match=r"block 0 \(IRevBlock\), chunk \d+ to \d+: "):
        output.sum().backward()


def test_a_projection_that_rounds_differently():
    model = make_model()
    model.layers[1].projection.register_forward_hook(
        lambda _, __, y: y + 1e-6 * y.square() if torch.is_grad_enabled() else y
    )
    output, _ = model(make_input()[0])
    with pytest.raises(ReversalError, match="layer 1, chunk 2: .*memory='checkpoint'"):
        output.sum().backward()


@all_chunked
def test_an_exception_in_backward_leaves_nothing_behind(memory):
    x, _ = make_input()
    model, clean = make_model(memory), make_model(memory)

    def fail(*_):
        if torch.is_grad_enabled():  # not in the forward pass
            raise KeyboardInterrupt

    hook = model.layers[1].projection.register_forward_hook(fail)
    output, _ = model(x)
    with pytest.raises(KeyboardInterrupt):
        output.sum().backward()
    hook.remove()
    assert all(p.grad is None for p in model.parameters())
    assert_same_bits(outcome(model, model, x), outcome(clean, clean, x))


# What is saved, and what else runs a training step


def attributes(node: object) -> list[object]:
    """All that an autograd node was given, beside the tensors that it saved."""
    found: list[object] = []
    queue = list(vars(node).values())
    while queue:
        value = queue.pop()
        found.append(value)
        if isinstance(value, list | tuple | set):
            queue.extend(value)
        elif isinstance(value, dict):
            queue.extend(value.values())
    return found


@all_chunked
def test_nothing_hides_on_ctx(memory):
    x, _ = make_input()
    model = make_model(memory, batch_first=False)
    output, _ = model(x.detach().transpose(0, 1))
    kinds, known = attributes(output.grad_fn), {id(p) for p in model.parameters()}
    assert memory in kinds
    assert not any(isinstance(value, torch.Tensor) and id(value) not in known for value in kinds)


@every_strategy
def test_save_on_cpu_and_gradient_accumulation(memory):
    model = make_model(memory)
    x, _ = make_input()
    wanted = outcome(model, model, x)[1][1:]
    with save_on_cpu():
        got = outcome(model, model, x)[1][1:]
    assert_same_bits(got, wanted)
    for _ in range(2):
        loss_of(*model(x)).backward()
    assert_same_bits([p.grad for p in model.parameters()], [2 * w for w in wanted])
