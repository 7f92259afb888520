"""The compiled step of a cell: against the reference, and against calling the layer."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.library import opcheck
from torch.nn import functional as F
from torch.nn.utils import prune

from irevrnn import IRevRNNCell
from irevrnn.kernels import reference
from irevrnn.kernels.activations import ACTIVATIONS
from irevrnn.modules import cell as cell_module
from tests.cases import AWKWARD_WEIGHTS, assert_same_bits

pytestmark = pytest.mark.usefixtures("kernels")
BATCHES = [(), (1,), (3,), (0,)]
batches = pytest.mark.parametrize("batch", BATCHES, ids=str)
norms = pytest.mark.parametrize("norm", [None, "layer"])


def make_cell(inputs=5, hidden=7, seed=0, **options):
    """A cell whose first units have awkward weights, and all of which have couplings."""
    torch.manual_seed(seed)
    cell = IRevRNNCell(inputs, hidden, **options)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.normal_(0, 0.5)
        u = torch.tensor(AWKWARD_WEIGHTS)[:hidden]
        cell.layer.recurrent_weight[: len(u)] = u
    return cell


def draw_step(batch, inputs=5, hidden=7):
    """An input that is not contiguous, and states other than zero."""
    x = torch.randn(*batch, 2 * inputs)[..., ::2]
    assert x.numel() < 2 or not x.is_contiguous()
    return x, (torch.randn(*batch, hidden), torch.randn(*batch, hidden))


@pytest.fixture
def steps(monkeypatch):
    """The calls of the compiled step so far."""
    run, calls = torch.ops.irevrnn.layer_step.default, []

    def counted(*arguments):
        calls.append(arguments)
        return run(*arguments)

    monkeypatch.setattr(torch.ops.irevrnn, "layer_step", SimpleNamespace(default=counted))
    return calls


def call_layer(cell, *arguments):
    """Run a step without the compiled one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cell_module, "can_fuse", lambda *_: False)
        return cell(*arguments)


def exact(cell, x, hidden, resets=None):
    """A step of the reference in float64."""
    layer, rows = cell.layer, x.double().reshape(1, -1, x.shape[-1])
    bias = layer.projection.bias
    z = F.linear(rows, layer.projection.weight.double(), None if bias is None else bias.double())
    if isinstance(layer.norm, nn.LayerNorm):
        weight, bias = layer.norm.weight.double(), layer.norm.bias.double()
        z = F.layer_norm(z, z.shape[-1:], weight, bias, layer.norm.eps)
    weights = (layer.recurrent_weight, layer.coupling_a, layer.coupling_b)
    h, c = (state.double().reshape(z.shape[1:]) for state in hidden)
    resets = None if resets is None else resets.reshape(1, -1)
    options = layer.activation, layer.coupling_activation
    exact = [w.double() for w in weights]
    _, h, c = reference.scan(z, h, c, *exact, *options, resets=resets)
    return h.view(hidden[0].shape), c.view(hidden[0].shape)


def assert_exact(cell, x, hidden, resets=None):
    """Compare with the bits of the layer, and with the reference."""
    got = cell(x, hidden, resets)
    assert_same_bits(got, call_layer(cell, x, hidden, resets))
    for state, wanted in zip(got, exact(cell, x, hidden, resets), strict=True):
        assert state.is_contiguous() and state.shape == hidden[0].shape
        torch.testing.assert_close(state.double(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("coupling_activation", ACTIVATIONS)
@torch.no_grad()
def test_every_activation(steps, activation, coupling_activation):
    cell = make_cell(activation=activation, coupling_activation=coupling_activation)
    assert_exact(cell, *draw_step((3,)))
    assert len(steps) == 1


@batches
@norms
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("inputs", "hidden", "couplings"), [(1, 1, 0), (3, 17, 1), (33, 64, 5)])
@torch.no_grad()
def test_every_shape(steps, batch, norm, bias, inputs, hidden, couplings):
    cell = make_cell(inputs, hidden, num_couplings=couplings, norm=norm, bias=bias)
    step = draw_step(batch, inputs, hidden)
    for resets in (None, torch.rand(batch) < 0.5):
        assert_exact(cell, *step, resets)
    assert len(steps) == 2


@batches
@norms
def test_gradients_are_those_of_the_layer(steps, monkeypatch, batch, norm):
    cell, (x, hidden) = make_cell(norm=norm), draw_step(batch)
    resets = torch.rand(batch) < 0.5

    def gradients(run):
        inputs = [t.detach().requires_grad_() for t in (x, *hidden)]
        h, c = run(inputs[0], tuple(inputs[1:]), resets)
        return torch.autograd.grad((h * 2 + c).sum(), [*inputs, *cell.parameters()])

    assert_same_bits(gradients(cell), gradients(lambda *step: call_layer(cell, *step)))
    monkeypatch.undo()
    opcheck(torch.ops.irevrnn.layer_step.default, steps[0])


# --- where the layer is called --------------------------------------------------------------------


CHANGES = {
    "hook of the layer": lambda layer: layer.register_forward_pre_hook(lambda *_: None),
    "hook of the projection": lambda layer: layer.projection.register_forward_hook(lambda *_: None),
    "other projection": lambda layer: setattr(layer, "projection", nn.Linear(5, 7)),
    "other forward": lambda layer: setattr(layer, "forward", lambda x: x.tile(2)[:, :7] + 1),
    "batch norm": lambda layer: setattr(layer, "norm", nn.BatchNorm1d(7)),
    "pruned projection": lambda layer: prune.l1_unstructured(layer.projection, "weight", 3),
    "pruned recurrence": lambda layer: prune.l1_unstructured(layer, "recurrent_weight", 3),
    "float64": lambda layer: layer.double(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_users_change_is_called(steps, change):
    cell, (x, hidden) = make_cell(), draw_step((3,))
    CHANGES[change](cell.layer)
    x, *hidden = (each.to(cell.layer.recurrent_weight.dtype) for each in (x, *hidden))
    got = cell(x, tuple(hidden))
    assert not steps
    assert_same_bits(got, call_layer(cell, x, hidden))


@torch.no_grad()
def test_what_is_not_plain_goes_through_the_layer(steps):
    cell, (x, (h, c)) = make_cell(), draw_step((3,))
    wanted = cell(x, (h, c))
    del steps[:]
    assert_same_bits(cell(x, [h, c]), wanted)
    with torch.autocast("cpu", torch.bfloat16):
        assert_same_bits(cell(x, (h, c)), call_layer(cell, x, (h, c)))
    assert_same_bits(cell(x), call_layer(cell, x, (torch.zeros_like(h),) * 2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IREVRNN_BACKEND", "cpp")
        assert_same_bits(cell(x, (h, c)), wanted)
    mapped = torch.func.vmap(lambda x, h, c: cell(x, (h, c)))(x, h, c)
    torch.testing.assert_close(mapped, wanted)
    compiled = torch.compile(cell, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, (h, c)), wanted)
    exported = torch.export.export(cell, (x, (h, c))).module()
    torch.testing.assert_close(exported(x, (h, c)), wanted)
    assert not steps


# --- errors ---------------------------------------------------------------------------------------

X, H = torch.zeros(2, 5), torch.zeros(2, 7)
BAD = {
    "no pair": (X, (H, H, H)),
    "batch of c": (X, (H, H[:1])),
    "batch without": (X[0], (H[:1], H[:1])),
    "no states": (X, (H.tolist(), H)),
    "dtype of input": (X.double(), (H, H)),
    "dtype of states": (X, (H.double(), H)),
    "shape of resets": (X, (H, H), torch.zeros(3, dtype=torch.bool)),
    "dtype of resets": (X, (H, H), torch.zeros(2)),
}


@pytest.mark.parametrize("what", BAD)
def test_errors_are_those_of_the_layer(what):
    cell, raised = make_cell(), []
    for run in (cell, lambda *step: call_layer(cell, *step)):
        with pytest.raises((TypeError, ValueError), match="must") as caught:
            run(*BAD[what])
        raised.append((caught.type, str(caught.value)))
    assert raised[0] == raised[1]
