"""torch.export, AOTInductor and ONNX: a trained model, run elsewhere."""

import importlib.util
import io
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.export import Dim, export
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves

from irevrnn import IRevBlock, IRevRNN, IRevStack, scan
from irevrnn import onnx as irevrnn_onnx
from irevrnn.activations import ACTIVATIONS
from tests.cases import assert_same_bits

ANY = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
SHAPES = ((3, 20), (5, 7), (1, 100), (2, 17), (2, 1), (1, 1))
OPTIONS = (
    {"norm": "layer", "residual": True}, {"norm": "batch", "batch_first": False},
    {"bidirectional": True}, {"memory": "store"},
)  # fmt: skip
needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnxscript", "onnxruntime")),
    reason="needs the extra onnx",
)


@pytest.fixture(autouse=True)
def _kernels(kernels):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch's own, of tree specifications
        yield


def make_model(**options):
    """A model with recurrent weights and couplings that matter, not those of a fresh one."""
    torch.manual_seed(0)
    model = IRevRNN(5, 8, 2, **options)
    for layer in (*model.layers, *model.reverse_layers):
        nn.init.uniform_(layer.recurrent_weight, -0.95, 0.95)
        nn.init.normal_(layer.coupling_a, 0, 0.3)
        nn.init.normal_(layer.coupling_b, 0, 0.3)
        if isinstance(layer.norm, nn.BatchNorm1d):
            nn.init.uniform_(layer.norm.running_mean, -1, 1)
            nn.init.uniform_(layer.norm.running_var, 0.5, 2)
    return model.eval()


def test_a_program_takes_any_length_without_a_batch():
    model = make_model()
    program = export(model, (torch.randn(20, 5),), dynamic_shapes=({0: Dim.DYNAMIC},)).module()
    for steps in (2, 16, 33, 100):
        x = torch.randn(steps, 5)
        assert_same_bits(tree_leaves(program(x)), tree_leaves(model(x)))


@pytest.mark.parametrize(
    ("options", "strict", "grad_mode"),
    [*((options, False, True) for options in OPTIONS), ({"norm": "batch"}, True, False)],
    ids=str,
)
def test_export_round_trip(options, strict, grad_mode):
    model = make_model(**options)
    with torch.set_grad_enabled(grad_mode):
        program = export(model, (torch.randn(3, 20, 5),), dynamic_shapes=(ANY,), strict=strict)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for batch, steps in SHAPES:
        x = torch.randn(batch, steps, 5)
        for got, want in zip(tree_leaves(loaded(x)), tree_leaves(model(x)), strict=True):
            assert torch.equal(got, want)


def test_an_exported_model_with_store_can_be_trained():
    model = make_model(memory="store")
    x = torch.randn(2, 30, 5)
    program = export(model, (x,), dynamic_shapes=(ANY,)).module()
    program(x)[0].square().sum().backward()
    model(x)[0].square().sum().backward()
    wanted = dict(model.named_parameters())
    for name, p in program.named_parameters():
        assert torch.equal(p.grad, wanted[name].grad)


def test_an_exported_model_with_recompute_cannot():
    x = torch.randn(2, 30, 5)
    program = export(make_model(), (x,)).module()
    with pytest.raises(ValueError, match="export a model with memory='store' to train"):
        program(x)[0].sum().backward()


@pytest.mark.parametrize("memory", ["checkpoint", "reversible", "store_fixed"])
def test_other_strategies_cannot_be_exported(memory):
    model = make_model(memory=memory, activation="identity")
    x = torch.randn(2, 30, 5)
    with pytest.raises(ValueError, match=f"cannot be exported: memory='{memory}'"):
        export(model, (x,))
    model.memory = "recompute"  # the way out that the page shows
    assert export(model, (x,))


@pytest.mark.parametrize(("batch", "steps"), [(2, 20), (64, 2100)])
def test_an_exported_model_takes_any_size(batch, steps):
    # From some size on, the layer multiplies in another way where it is not exported.
    model = IRevRNN(5, 64)
    with torch.no_grad():
        example = torch.randn(batch, steps, 5)
        program = export(model, (example,), dynamic_shapes=(ANY,), strict=False).module()
        for shape in ((1, 2), (64, 2200)):
            x = torch.randn(*shape, 5)
            assert torch.allclose(program(x)[0], model(x)[0], atol=1e-5)


@pytest.mark.parametrize("memory", ["recompute", "store"])
def test_what_make_fx_records_of_blocks_depends_on_the_input(memory):
    stack = IRevStack([nn.Linear(5, 16), IRevBlock(16, 64)], memory).requires_grad_(False)
    recorded = make_fx(lambda x: stack(x)[0])(torch.randn(4, 30, 5))
    x = torch.randn(4, 30, 5)
    assert torch.allclose(recorded(x), stack(x)[0], atol=1e-5)


def test_lengths_cannot_be_exported():
    with pytest.raises(ValueError, match="cannot be exported: sequences of different length"):
        export(make_model(), (torch.randn(2, 30, 5),), {"lengths": torch.tensor([30, 4])})


@pytest.mark.slow
@needs_onnx
def test_what_the_page_saves_can_be_loaded_elsewhere(tmp_path):
    """Each block of docs/transforms.md that reads or writes files, in a process of its own."""
    page = (Path(__file__).parents[2] / "docs" / "transforms.md").read_text()
    blocks = re.findall(r"^```python files\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    for code in blocks:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


def run_onnx(path, *inputs):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    given = dict(zip(names, (x.numpy() for x in inputs), strict=True))
    return [torch.from_numpy(y) for y in session.run(None, given)]


def assert_onnx_is(model, path):
    for batch, steps in SHAPES:
        x = torch.randn(batch, steps, 5)
        with torch.no_grad():
            wanted = tree_leaves(model(x))
        torch.testing.assert_close(run_onnx(path, x), wanted, rtol=1e-5, atol=1e-5)


@needs_onnx
@pytest.mark.parametrize(
    "options",
    [  # every nonlinearity occurs: g and f are written by one function
        {},
        {"activation": "sigmoid", "coupling_activation": "leaky_relu"},
        {"activation": "identity", "coupling_activation": "sigmoid"},
        {"num_couplings": 0, "norm": "layer", "batch_first": False},
        {"norm": "batch", "bidirectional": True},
    ],
    ids=str,
)
def test_onnx_options(tmp_path, options):
    model = make_model(**options)
    irevrnn_onnx.export(
        model, (torch.randn(3, 20, 5),), tmp_path / "model.onnx", dynamic_shapes=(ANY,),
        verbose=False,
    )  # fmt: skip
    assert_onnx_is(model, tmp_path / "model.onnx")


class Scan(nn.Module):
    """The recurrence alone, with resets."""

    def __init__(self, activation="relu"):
        super().__init__()
        self.activation = activation
        self.u = nn.Parameter(torch.linspace(-0.9, 0.9, 8))
        self.a, self.b = (nn.Parameter(torch.full((2, 8), x)) for x in (0.3, -0.2))

    def forward(self, z, h_0, c_0, resets):
        weights = (self.u, self.a, self.b)
        return scan(z, h_0, c_0, *weights, self.activation, memory="store", resets=resets)


def inputs_with_resets(batch, steps):
    states = torch.randn(batch, 8), torch.full((batch, 8), float("nan"))  # the first reset drops it
    resets = torch.rand(steps, batch) < 0.2
    resets[0] = True
    return torch.randn(steps, batch, 8), *states, resets


WITH_RESETS = (ANY, {0: Dim.DYNAMIC}, {0: Dim.DYNAMIC}, ANY)


def test_export_with_resets():
    model = Scan()
    program = export(model, inputs_with_resets(3, 20), dynamic_shapes=WITH_RESETS).module()
    for batch, steps in SHAPES:
        inputs = inputs_with_resets(batch, steps)
        got, wanted = program(*inputs), model(*inputs)
        assert_same_bits(got, wanted)


def test_export_of_both_directions_with_resets():
    class Reset(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = make_model(bidirectional=True)

        def forward(self, x, resets):
            return self.inner(x, resets=resets)[0]

    def draw(batch, steps):
        return torch.randn(batch, steps, 5), torch.rand(batch, steps) < 0.3

    model = Reset()
    program = export(model, draw(3, 20), dynamic_shapes=(ANY, ANY)).module()
    for batch, steps in ((3, 1), (3, 2), (1, 3), (2, 30)):
        inputs = draw(batch, steps)
        assert torch.equal(program(*inputs), model(*inputs))


@needs_onnx
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_onnx_with_resets(tmp_path, activation):
    model, path = Scan(activation).eval(), tmp_path / "model.onnx"
    irevrnn_onnx.export(
        model, inputs_with_resets(3, 20), path, dynamic_shapes=WITH_RESETS, verbose=False
    )
    for batch, steps in SHAPES:
        inputs = inputs_with_resets(batch, steps)
        with torch.no_grad():
            wanted = model(*inputs)
        torch.testing.assert_close(run_onnx(path, *inputs), [*wanted], rtol=1e-5, atol=1e-5)


@needs_onnx
def test_onnx_of_a_model_around_the_layer(tmp_path):
    """States go in and out, so the exported model streams."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = make_model(), nn.Linear(8, 2)

        def forward(self, x, h, c):
            output, (h, c) = self.rnn(x, (h, c), return_sequence=False)
            return self.head(output), h, c

    model = Model().eval()
    path = tmp_path / "model.onnx"
    any_batch = {1: Dim.DYNAMIC}
    irevrnn_onnx.export(
        model, (torch.randn(3, 20, 5), torch.zeros(2, 3, 8), torch.zeros(2, 3, 8)), path,
        dynamic_shapes=(ANY, any_batch, any_batch), verbose=False,
    )  # fmt: skip
    x, *states = torch.randn(3, 40, 5), torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    with torch.no_grad():
        wanted = model(x, *states)
    for part in x.split(15, dim=1):
        last, *states = run_onnx(path, part, *states)
    torch.testing.assert_close([last, *states], [*wanted], rtol=1e-5, atol=1e-5)


def test_onnx_takes_a_tensor_for_each_input(tmp_path):
    x = torch.randn(3, 5, 5)
    with pytest.raises(ValueError, match=r"inputs \[0\] and \[1\] are the same tensor"):
        irevrnn_onnx.export(nn.Bilinear(5, 5, 2).eval(), (x, x), tmp_path / "model.onnx")
    model, h = make_model(), torch.zeros(2, 3, 8)
    with pytest.raises(ValueError, match=r"inputs \[1\]\[0\] and \[1\]\[1\] are the same"):
        irevrnn_onnx.export(model.eval(), (x, (h, h)), tmp_path / "model.onnx")


@needs_onnx
def test_onnx_is_for_single_and_double_precision(tmp_path):
    path, x = tmp_path / "model.onnx", torch.randn(3, 20, 5)
    for dtype in (torch.float16, torch.bfloat16):
        message = f"for float32 and float64; got a tensor of {dtype}: call model.float"
        for model in (make_model().to(dtype), nn.Linear(5, 5)):
            with pytest.raises(ValueError, match=message):
                irevrnn_onnx.export(model.eval(), (x.to(dtype),), path)
    for activation in ACTIVATIONS:  # onnxruntime does not have every operator in float64
        model = make_model(activation=activation).double().eval()
        irevrnn_onnx.export(model, (x.double(),), path, verbose=False)
        torch.testing.assert_close(run_onnx(path, x.double()), tree_leaves(model(x.double())))


def test_onnx_says_what_it_needs(tmp_path, monkeypatch):
    model, x = make_model(), torch.randn(3, 20, 5)
    with pytest.raises(ValueError, match="model.eval"):
        irevrnn_onnx.export(model.train(), (x,), tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"pip install '\.\[onnx\]' in a clone"):
        irevrnn_onnx.export(model.eval(), (x,), tmp_path / "model.onnx")


@pytest.mark.parametrize("memory", ["checkpoint", "reversible", "store_fixed"])
def test_onnx_says_which_strategy_it_cannot_write_before_it_begins(tmp_path, monkeypatch, memory):
    monkeypatch.setattr(torch.onnx, "export", None)
    model = nn.Sequential(make_model(memory=memory, activation="identity")).eval()
    message = f"0 cannot be exported: memory='{memory}' runs in Python; set memory='recompute' or"
    with pytest.raises(ValueError, match=message):
        irevrnn_onnx.export(model, (torch.randn(3, 20, 5),), tmp_path / "model.onnx")


@needs_onnx
@pytest.mark.parametrize("memory", ["recompute", "store"])
def test_torch_onnx_export_alone_says_what_to_call(tmp_path, monkeypatch, memory):
    monkeypatch.setattr("irevrnn.ops.has_onnx_form", False)
    with pytest.raises(torch.onnx.OnnxExporterError, match=r"call irevrnn\.onnx\.export") as caught:
        torch.onnx.export(
            make_model(memory=memory), (torch.randn(3, 20, 5),), tmp_path / "model.onnx",
            dynamo=True, verbose=False,
        )  # fmt: skip
    assert str(caught.value.__cause__).startswith("torch.onnx.export does not know the operator")


def stack_of_blocks():
    """A stack whose couplings matter."""
    torch.manual_seed(0)
    oscillates = {"shortest_period": 2.5, "longest_period": 20}
    blocks = [IRevBlock(6, 8, norm=None, **oscillates), IRevBlock(6, 4, **oscillates)]
    return IRevStack([nn.Linear(5, 6), *blocks]).eval()


def test_a_stack_of_blocks():
    model, x = stack_of_blocks(), torch.randn(2, 77, 5)
    with torch.no_grad():
        program = export(model, (torch.randn(4, 20, 5),), dynamic_shapes=(ANY,))
    torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-5)


@needs_onnx
def test_onnx_of_a_stack_of_blocks(tmp_path):
    model, path = stack_of_blocks(), tmp_path / "model.onnx"
    irevrnn_onnx.export(
        model, (torch.randn(4, 20, 5),), path, dynamic_shapes=(ANY,), verbose=False
    )  # fmt: skip
    assert_onnx_is(model, path)
