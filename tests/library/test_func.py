"""Derivatives of derivatives, and the transforms of torch.func."""

import copy
from functools import partial

import pytest
import torch
from torch.autograd import forward_ad, gradgradcheck
from torch.func import functional_call, grad, hessian, jacrev, jvp, stack_module_state, vjp, vmap
from torch.testing import assert_close

from irevrnn import IRevRNN, scan
from irevrnn.strategies.rules import STRATEGIES
from tests.cases import make_inputs, make_resets, run, upstream

of_a_layer = pytest.mark.parametrize("memory", ["store", "recompute"])
chunkwise = pytest.mark.parametrize("memory", ["checkpoint", "reversible", "store_fixed"])


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


@chunkwise
@pytest.mark.parametrize("squared", [False, True])
def test_chunkwise_strategies_refuse_a_second_derivative(kernels, memory, squared):
    model = IRevRNN(3, 6, activation="identity", memory=memory)
    x = torch.randn(2, 20, 3, requires_grad=True)
    output = model(x)[0]
    loss = output.square().sum() if squared else output.sum()
    with pytest.raises(RuntimeError, match=f"memory='{memory}' cannot be differentiated twice.*"):
        torch.autograd.grad(loss, x, create_graph=True)


# --- torch.func --------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [x for x in STRATEGIES if x != "auto"])
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
def test_ensemble(kernels, memory, shared, options):
    models, call = make_ensemble(memory, **options)
    x = torch.randn(2, 20, 3) if shared else torch.randn(3, 2, 20, 3)
    state = stack_module_state(models)
    outputs, (h_n, c_n) = vmap(call, in_dims=(0, 0, None if shared else 0))(*state, x)
    wanted = [model(x if shared else x[i]) for i, model in enumerate(models)]
    assert_close(outputs, torch.stack([output for output, _ in wanted]))
    assert_close(h_n, torch.stack([h for _, (h, _) in wanted]))
    assert_close(c_n, torch.stack([c for _, (_, c) in wanted]))


@of_a_layer
def test_ensemble_trains(kernels, memory):
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


def test_vmap_of_vmap_and_of_packed_sequences(kernels):
    _, *rest = (x.detach() for x in make_inputs(1, 3, 5, 2, torch.float64))
    z, sizes = torch.randn(2, 3, 6, 5, dtype=torch.float64), torch.tensor([3, 2, 1])

    def packed(z):
        return scan(z, *rest, batch_sizes=sizes)[0]

    wanted = torch.stack([torch.stack([packed(x) for x in row]) for row in z])
    assert_close(vmap(vmap(packed))(z), wanted)


def test_forward_mode(kernels):
    loss, u = loss_of_weight()
    slope = grad(loss)(u) @ u
    assert_close(jvp(loss, (u,), (u,))[1], slope)
    assert_close(hessian(loss)(u), jacrev(jacrev(loss))(u))  # forward over reverse
    with forward_ad.dual_level():
        assert_close(forward_ad.unpack_dual(loss(forward_ad.make_dual(u, u))).tangent, slope)


@chunkwise
def test_chunkwise_strategies_refuse_transforms(kernels, memory):
    model = IRevRNN(3, 6, activation="identity", memory=memory)
    x = torch.randn(2, 20, 3)
    refused = pytest.raises(NotImplementedError, match=f"'{memory}' does not go with torch.func")
    with refused:
        grad(lambda x: model(x)[0].sum())(x)
    with refused:
        vmap(lambda x: model(x)[0])(x.unsqueeze(0))
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward-mode"):
        model(forward_ad.make_dual(x, x))


@of_a_layer
def test_a_transform_gives_what_the_kernels_give(kernels, memory):
    case = make_inputs(40, 3, 9, 3, torch.float64)
    function = partial(scan, memory=memory, resets=make_resets("at random", 40, 3))
    outputs, pull_back = vjp(function, *(x.detach() for x in case))
    assert_close((*outputs, *pull_back(upstream(outputs))), run(function, case))
