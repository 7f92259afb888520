"""Derivatives of derivatives, and the transforms of torch.func."""

import copy
from functools import partial

import pytest
import torch
from torch.autograd import forward_ad, gradgradcheck
from torch.func import functional_call, grad, hessian, jacrev, jvp, stack_module_state, vjp, vmap
from torch.testing import assert_close

from irevrnn import IRevRNN, scan
from tests.cases import assert_same_bits, make_inputs, make_resets, run, upstream

of_a_layer = pytest.mark.parametrize("memory", ["store", "recompute"])
of_the_stack = pytest.mark.parametrize("memory", ["checkpoint", "reversible", "store_fixed"])


@pytest.fixture(params=["auto", "python"])
def backend(request, kernels, monkeypatch):
    monkeypatch.setenv("IREVRNN_BACKEND", request.param)
    return request.param


def reference_of(function, monkeypatch):
    """The same function through the reference."""

    def run_reference(*arguments):
        with monkeypatch.context() as patch:
            patch.setenv("IREVRNN_BACKEND", "python")
            return function(*arguments)

    return run_reference


def loss_of_weight(memory="recompute", activation="tanh"):
    z, h_0, c_0, u, a, b = (x.detach() for x in make_inputs(20, 2, 5, 2, torch.float64))

    def loss(u):
        out, h_n, c_n = scan(z, h_0, c_0, u, a, b, activation, memory=memory)
        return out.square().sum() + (h_n * c_n).sum()

    return loss, u


# --- gradients of gradients --------------------------------------------------------------------


@of_a_layer
@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "identity"])
@pytest.mark.parametrize("couplings", [0, 2])
def test_gradgradcheck(kernels, memory, activation, couplings):
    case = make_inputs(4, 2, 3, couplings, torch.float64)
    assert gradgradcheck(lambda *x: scan(*x, activation, "sigmoid", memory), case)


@of_a_layer
@pytest.mark.parametrize("resets", [None, [True, False, False, False, True, True, False]])
def test_gradgradcheck_of_packed_sequences(kernels, memory, resets):
    _, *rest = make_inputs(1, 4, 3, 2, torch.float64)
    z = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    sizes = torch.tensor([3, 2, 1, 1])  # the fourth sequence has no step
    resets = resets and torch.tensor(resets)
    function = lambda *x: scan(*x, "tanh", "tanh", memory, sizes, resets)  # noqa: E731
    assert gradgradcheck(function, (z, *rest))


@of_a_layer
@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_second_derivative_where_there_are_kinks(kernels, monkeypatch, memory, activation):
    loss, u = loss_of_weight(memory, activation)
    second = jacrev(jacrev(loss))
    assert_close(second(u), reference_of(second, monkeypatch)(u))


def test_gradient_penalty_of_a_stack(kernels, monkeypatch):
    """A loss with the gradient of the output by the input in it, as critics are trained."""
    model = IRevRNN(3, 6, 2, activation="tanh", norm="layer", dtype=torch.float64)

    def penalty():
        x = torch.randn(2, 20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        x.requires_grad_()
        (slope,) = torch.autograd.grad(model(x)[0].sum(), x, create_graph=True)
        return torch.autograd.grad((slope.norm() - 1).square(), list(model.parameters())[:3])

    assert_close(penalty(), reference_of(penalty, monkeypatch)())


def test_third_derivative(kernels, monkeypatch):
    loss, u = loss_of_weight()

    def third(u):
        u = u.clone().requires_grad_()
        first = torch.autograd.grad(loss(u), u, create_graph=True)[0].square().sum()
        second = torch.autograd.grad(first, u, create_graph=True)[0].square().sum()
        return torch.autograd.grad(second, u)[0]

    assert_close(third(u), reference_of(third, monkeypatch)(u))


@of_the_stack
@pytest.mark.parametrize("squared", [False, True])
def test_strategies_of_the_stack_refuse_a_second_derivative(kernels, memory, squared):
    model = IRevRNN(3, 6, activation="identity", memory=memory)
    x = torch.randn(2, 20, 3, requires_grad=True)
    output = model(x)[0]
    loss = output.square().sum() if squared else output.sum()
    (slope,) = torch.autograd.grad(loss, x, create_graph=True)
    with pytest.raises(RuntimeError, match=f"memory='{memory}' cannot be differentiated twice.*"):
        slope.sum().backward()


# --- torch.func --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "memory", ["store", "recompute", "checkpoint", "reversible", "store_fixed"]
)
def test_functional_call(kernels, memory):
    model = IRevRNN(3, 6, 2, activation="identity", memory=memory)
    other = {name: 0.9 * p for name, p in model.named_parameters()}
    x = torch.randn(2, 20, 3)
    output, _ = functional_call(model, other, (x,))
    model.load_state_dict(other)
    assert torch.equal(output, model(x)[0])


def make_ensemble(memory, **options):
    torch.manual_seed(0)
    models = [IRevRNN(3, 7, 2, memory=memory, **options) for _ in range(3)]
    base = copy.deepcopy(models[0]).to("meta")  # its own parameters are never read
    return models, lambda p, b, x: functional_call(base, (p, b), (x,))


@of_a_layer
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"norm": "layer"}], ids=str)
def test_ensemble(backend, memory, shared, options):
    models, call = make_ensemble(memory, **options)
    x = torch.randn(2, 20, 3) if shared else torch.randn(3, 2, 20, 3)
    state = stack_module_state(models)
    outputs, (h_n, c_n) = vmap(call, in_dims=(0, 0, None if shared else 0))(*state, x)
    wanted = [model(x if shared else x[i]) for i, model in enumerate(models)]
    assert_close(outputs, torch.stack([output for output, _ in wanted]))
    assert_close(h_n, torch.stack([h for _, (h, _) in wanted]))
    assert_close(c_n, torch.stack([c for _, (_, c) in wanted]))


@of_a_layer
def test_ensemble_trains(backend, memory):
    """Backpropagation through vmap, and vmap over grad, give each member its own gradient."""
    models, call = make_ensemble(memory)
    x = torch.randn(2, 20, 3)
    parameters, buffers = stack_module_state(models)

    def loss(p, b, x):
        return call(p, b, x)[0].square().sum()

    vmap(loss, in_dims=(0, 0, None))(parameters, buffers, x).sum().backward()
    inner = vmap(grad(loss), in_dims=(0, 0, None))(parameters, buffers, x)
    for index, model in enumerate(models):
        model(x)[0].square().sum().backward()
        for name, p in model.named_parameters():
            assert_close(parameters[name].grad[index], p.grad)
            assert_close(inner[name][index], p.grad)


@of_a_layer
def test_gradient_of_each_sample(backend, memory):
    model = IRevRNN(3, 7, 2, norm="layer", memory=memory, dtype=torch.float64)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    x = torch.randn(4, 20, 3, dtype=torch.float64)

    def loss(p, x):
        output, (_, c_n) = functional_call(model, p, (x.unsqueeze(0),))
        return output.square().sum() + c_n.sum()

    each = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    for index in range(len(x)):
        for name, wanted in grad(loss)(parameters, x[index]).items():
            assert_close(each[name][index], wanted)


def test_vmap_over_any_dimension_of_any_argument(kernels):
    case = [x.detach() for x in make_inputs(20, 2, 5, 2, torch.float64)]
    for index, x in enumerate(case):
        stacked = torch.stack([x, 2 * x, x + 1])
        wanted = [scan(*case[:index], each, *case[index + 1 :]) for each in stacked]
        for dim in range(stacked.dim()):
            in_dims = tuple(dim if i == index else None for i in range(6))
            moved = [*case[:index], stacked.movedim(0, dim), *case[index + 1 :]]
            got = vmap(scan, in_dims=in_dims)(*moved)
            assert_close(got, tuple(torch.stack(ys) for ys in zip(*wanted, strict=True)))


def test_vmap_of_vmap_and_of_packed_sequences(kernels):
    _, *rest = (x.detach() for x in make_inputs(1, 3, 5, 2, torch.float64))
    z, sizes = torch.randn(2, 3, 6, 5, dtype=torch.float64), torch.tensor([3, 2, 1])

    def packed(z):
        return scan(z, *rest, batch_sizes=sizes)[0]

    wanted = torch.stack([torch.stack([packed(x) for x in row]) for row in z])
    assert_close(vmap(vmap(packed))(z), wanted)


def test_vmap_over_lengths_is_refused(kernels):
    _, *rest = (x.detach() for x in make_inputs(1, 3, 5, 2, torch.float64))
    z, sizes = torch.randn(6, 5, dtype=torch.float64), torch.tensor([[3, 2, 1], [2, 2, 2]])
    with pytest.raises(ValueError, match="batch_sizes must .* vmap"):
        vmap(lambda sizes: scan(z, *rest, batch_sizes=sizes)[0])(sizes)


def test_forward_mode_is_refused_by_the_kernels(kernels):
    loss, u = loss_of_weight()
    refused = pytest.raises(NotImplementedError, match="no forward-mode derivative.*python")
    with refused:
        jvp(loss, (u,), (u,))
    with refused:
        hessian(loss)(u)  # forward over reverse
    with refused, forward_ad.dual_level():
        loss(forward_ad.make_dual(u, u))


def test_forward_mode_of_the_reference(kernels, monkeypatch):
    loss, u = loss_of_weight("store")
    wanted = grad(loss)(u) @ u
    monkeypatch.setenv("IREVRNN_BACKEND", "python")
    assert_close(jvp(loss, (u,), (u,))[1], wanted)
    assert_close(hessian(loss)(u), jacrev(jacrev(loss))(u))


@of_the_stack
def test_strategies_of_the_stack_refuse_transforms(kernels, memory):
    model = IRevRNN(3, 6, activation="identity", memory=memory)
    x = torch.randn(2, 20, 3)
    refused = pytest.raises(NotImplementedError, match=f"memory='{memory}' cannot be transformed")
    with refused:
        grad(lambda x: model(x)[0].sum())(x)
    with refused:
        vmap(lambda x: model(x)[0])(x.unsqueeze(0))
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward-mode"):
        model(forward_ad.make_dual(x, x))


def test_an_ensemble_runs_the_operator_once(kernels):
    models, call = make_ensemble("recompute")
    state = stack_module_state(models)
    with torch.no_grad(), torch.profiler.profile() as profile:
        vmap(call, in_dims=(0, 0, None))(*state, torch.randn(2, 20, 3))
    counts = {event.key: event.count for event in profile.key_averages()}
    assert counts["irevrnn::scan"] == 2  # once a layer, not once a layer and model


@of_a_layer
@pytest.mark.parametrize("kind", [None, "at random"])
def test_run_gives_the_same_under_a_transform(kernels, kind, memory):
    """The two forms of the autograd formula, with every output and every gradient."""
    case = make_inputs(40, 3, 9, 3, torch.float64)
    resets = kind and make_resets(kind, 40, 3)
    function = partial(scan, memory=memory, resets=resets)
    wanted = run(function, case)
    outputs, pull_back = vjp(function, *(x.detach() for x in case))
    assert_same_bits((*outputs, *pull_back(upstream(outputs))), wanted)
