"""The compiled step of a cell: against the reference, and against calling the layer."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.library import opcheck
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from irevrnn import IRevRNNCell, reference
from irevrnn.activations import ACTIVATIONS
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
    options = cell.activation, cell.coupling_activation
    exact = [w.double() for w in weights]
    _, h, c = reference.scan(z, h, c, *exact, *options, resets=resets)
    return h.view(hidden[0].shape), c.view(hidden[0].shape)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("coupling_activation", ACTIVATIONS)
@norms
@torch.no_grad()
def test_every_activation(steps, norm, activation, coupling_activation):
    options = {"activation": activation, "coupling_activation": coupling_activation}
    cell, step = make_cell(norm=norm, **options), draw_step((3,))
    got = cell(*step)
    assert len(steps) == 1
    assert_same_bits(got, call_layer(cell, *step))
    for state, wanted in zip(got, exact(cell, *step), strict=True):
        torch.testing.assert_close(state.double(), wanted, rtol=1e-4, atol=1e-5)


@batches
@norms
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("inputs", "hidden", "couplings"), [(1, 1, 0), (3, 17, 1), (33, 64, 5)])
@torch.no_grad()
def test_every_shape(steps, batch, norm, bias, inputs, hidden, couplings):
    cell = make_cell(inputs, hidden, num_couplings=couplings, norm=norm, bias=bias)
    step = draw_step(batch, inputs, hidden)
    for resets in (None, torch.rand(batch) < 0.5):
        got = cell(*step, resets)
        assert_same_bits(got, call_layer(cell, *step, resets))
        for state, wanted in zip(got, exact(cell, *step, resets), strict=True):
            assert state.is_contiguous() and state.shape == step[1][0].shape
            torch.testing.assert_close(state.double(), wanted, rtol=1e-4, atol=1e-4)
    assert len(steps) == 2


@batches
def test_opcheck(batch):
    cell, (x, hidden) = make_cell(norm="layer"), draw_step(batch)
    layer, norm, projection = cell.layer, cell.layer.norm, cell.layer.projection
    weights = layer.recurrent_weight, layer.coupling_a, layer.coupling_b
    normed = norm.weight, norm.bias, norm.eps, True
    options = "tanh", "relu", True, torch.rand(batch) < 0.5
    arguments = (x, projection.weight, projection.bias, *normed, *hidden, *weights, *options)
    opcheck(torch.ops.irevrnn.layer_step.default, arguments)


@batches
@norms
def test_gradients_are_those_of_the_layer(steps, batch, norm):
    cell, (x, hidden) = make_cell(norm=norm), draw_step(batch)
    resets = torch.rand(batch) < 0.5

    def gradients(run):
        inputs = [t.detach().requires_grad_() for t in (x, *hidden)]
        h, c = run(inputs[0], tuple(inputs[1:]), resets)
        return torch.autograd.grad((h * 2 + c).sum(), [*inputs, *cell.parameters()])

    assert_same_bits(gradients(cell), gradients(lambda *step: call_layer(cell, *step)))
    assert len(steps) == 1


def test_steps_leave_their_inputs_as_they_are(steps):
    cell, (x, hidden) = make_cell(), draw_step(())
    before = [t.clone() for t in (x, *hidden)]
    h, c = cell(x, hidden)
    with torch.no_grad():
        for state in (*cell(x, (h, c)), h.detach(), c.detach()):
            state.zero_()
    assert_same_bits((x, *hidden), before)
    assert len(steps) == 2


# --- where the layer is called --------------------------------------------------------------------


class Subclass(torch.Tensor):
    """A tensor that sees what is done with it."""


def hook_of(part):
    return lambda cell: getattr(cell.layer, part).register_forward_hook(lambda *_: None)


def replace_parameter(cell):
    u = cell.layer.recurrent_weight.detach()
    del cell.layer.recurrent_weight
    cell.layer.recurrent_weight = u


CHANGES = {
    "hook of the layer": lambda cell: cell.layer.register_forward_pre_hook(lambda *_: None),
    "hook of the projection": hook_of("projection"),
    "hook of the norm": hook_of("norm"),
    "other projection": lambda cell: setattr(cell.layer, "projection", nn.Linear(5, 7)),
    "other forward": lambda cell: setattr(cell.layer, "forward", lambda x: x.tile(2)[:, :7] + 1),
    "batch norm": lambda cell: setattr(cell.layer, "norm", nn.BatchNorm1d(7)),
    "pruned": lambda cell: prune.l1_unstructured(cell.layer.projection, "weight", 3),
    "parametrized": lambda cell: parametrizations.weight_norm(cell.layer.projection),
    "no parameter": replace_parameter,
    "float64": lambda cell: cell.double(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_users_change_is_called(steps, change):
    cell, (x, hidden) = make_cell(), draw_step((3,))
    CHANGES[change](cell)
    x, *hidden = (each.to(cell.layer.recurrent_weight.dtype) for each in (x, *hidden))
    got = cell(x, tuple(hidden))
    assert not steps
    assert_same_bits(got, call_layer(cell, x, hidden))


def test_hooks_of_the_cell_run_beside_the_compiled_step(steps):
    cell, step, seen = make_cell(), draw_step((3,)), []
    cell.register_forward_hook(lambda *_: seen.append(1))
    cell(*step)
    assert seen == [1] and len(steps) == 1
    with nn.modules.module.register_module_forward_hook(lambda *_: seen.append(2)):
        cell(*step)
    assert seen.count(2) == 4 and len(steps) == 1  # of the cell, layer, projection and norm


@torch.no_grad()
def test_what_is_not_plain_goes_through_the_layer(steps):
    cell, (x, (h, c)) = make_cell(), draw_step((3,))
    wanted = cell(x, (h, c))
    del steps[:]
    for hidden in ([h, c], (h.as_subclass(Subclass), c)):
        assert_same_bits([s.as_subclass(torch.Tensor) for s in cell(x, hidden)], wanted)
    with torch.autocast("cpu", torch.bfloat16):
        assert_same_bits(cell(x, (h, c)), call_layer(cell, x, (h, c)))
    assert_same_bits(cell(x), call_layer(cell, x, (torch.zeros_like(h),) * 2))
    mapped = torch.func.vmap(lambda x, h, c: cell(x, (h, c)))(x, h, c)
    torch.testing.assert_close(mapped, wanted)
    compiled = torch.compile(cell, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, (h, c)), wanted)
    exported = torch.export.export(cell, (x, (h, c))).module()
    torch.testing.assert_close(exported(x, (h, c)), wanted)
    assert not steps


@pytest.mark.parametrize("backend", ["cpp", "python"])
def test_another_backend_goes_through_the_layer(steps, monkeypatch, backend):
    cell, step = make_cell(), draw_step((3,))
    monkeypatch.setenv("IREVRNN_BACKEND", backend)
    torch.testing.assert_close(cell(*step)[0].double(), exact(cell, *step)[0], rtol=1e-4, atol=1e-5)
    assert not steps


# --- errors ---------------------------------------------------------------------------------------

X, H = torch.zeros(2, 5), torch.zeros(2, 7)
BAD = {
    "no tensor": ([[0.0] * 5], (H, H)),
    "features": (torch.zeros(2, 4), (H, H)),
    "dimensions": (torch.zeros(2, 1, 5), (H, H)),
    "no pair": (X, (H, H, H)),
    "h for one": (X, (H[0], H)),
    "batch of c": (X, (H, H[:1])),
    "c is wide": (X, (H, torch.zeros(2, 8))),
    "batch without": (X[0], (H[:1], H[:1])),
    "no states": (X, (H.tolist(), H)),
    "integers": (X, (H, H.int())),
    "dtype of input": (X.double(), (H, H)),
    "dtype of states": (X, (H.double(), H)),
    "device of states": (X, (H.to("meta"), H)),
    "shape of resets": (X, (H, H), torch.zeros(3, dtype=torch.bool)),
    "resets without a batch": (X[0], (H[0], H[0]), torch.zeros(1, dtype=torch.bool)),
    "dtype of resets": (X, (H, H), torch.zeros(2)),
    "resets in a list": (X, (H, H), [True, False]),
    "device of resets": (X, (H, H), torch.zeros(2, dtype=torch.bool, device="meta")),
}


@pytest.mark.parametrize("what", BAD)
def test_errors_are_those_of_the_layer(what):
    cell, raised = make_cell(), []
    for run in (cell, lambda *step: call_layer(cell, *step)):
        with pytest.raises((TypeError, ValueError, RuntimeError, AttributeError)) as caught:
            run(*BAD[what])
        raised.append((caught.type, str(caught.value)))
    assert raised[0] == raised[1]


def test_a_parameter_that_does_not_fit_is_refused_as_by_the_layer(steps):
    for name, shape in {"recurrent_weight": (6,), "coupling_a": (2, 7), "coupling_b": (7,)}.items():
        cell, step, raised = make_cell(), draw_step((3,)), []
        setattr(cell.layer, name, nn.Parameter(torch.zeros(shape)))
        for run in (cell, lambda *step, cell=cell: call_layer(cell, *step)):
            with pytest.raises(ValueError, match="must") as caught:
                run(*step)
            raised.append(str(caught.value))
        assert raised[0] == raised[1]
    assert len(steps) == 3
