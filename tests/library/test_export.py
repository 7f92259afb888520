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
from torch.utils._pytree import tree_leaves

from irevrnn import IRevBlock, IRevRNN, IRevStack, scan
from irevrnn import onnx as irevrnn_onnx
from irevrnn.kernels.activations import ACTIVATIONS
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


def test_an_exported_model_can_be_trained_with_store_alone():
    x = torch.randn(2, 30, 5)
    for memory in ("store", "recompute"):
        model = make_model(memory=memory)
        program = export(model, (x,), dynamic_shapes=(ANY,)).module()
        if memory == "store":
            program(x)[0].square().sum().backward()
            model(x)[0].square().sum().backward()
            wanted = dict(model.named_parameters())
            assert all(torch.equal(p.grad, wanted[n].grad) for n, p in program.named_parameters())
        else:
            with pytest.raises(ValueError, match="export a model with memory='store' to train"):
                program(x)[0].sum().backward()


@pytest.mark.parametrize("memory", ["checkpoint", "reversible", "store_fixed"])
def test_other_strategies_cannot_be_exported(tmp_path, memory):
    model = make_model(memory=memory, activation="identity")
    x = torch.randn(2, 30, 5)
    message = f"cannot be exported: memory='{memory}' runs in Python; set memory='recompute' or"
    with pytest.raises(ValueError, match=message):
        export(model, (x,))
    with pytest.raises(ValueError, match=f"model {message}"):
        irevrnn_onnx.export(model, (x,), tmp_path / "model.onnx")
    model.memory = "recompute"  # the way out that the page shows
    assert export(model, (x,))
    with pytest.raises(ValueError, match="cannot be exported: sequences of different length"):
        export(model, (x,), {"lengths": torch.tensor([30, 4])})


@pytest.mark.slow
@needs_onnx
@pytest.mark.parametrize(("page", "count"), [("transforms", 3), ("streaming", 1)])
def test_what_a_page_saves_can_be_loaded_elsewhere(page, count, tmp_path):
    """Each block of the page that reads or writes files, in a process of its own."""
    text = (Path(__file__).parents[2] / "docs" / f"{page}.md").read_text()
    blocks = re.findall(r"^```python files\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert len(blocks) == count
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


@needs_onnx
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_resets(tmp_path, activation):
    model, path = Scan(activation).eval(), tmp_path / "model.onnx"
    program = export(model, inputs_with_resets(3, 20), dynamic_shapes=WITH_RESETS).module()
    irevrnn_onnx.export(
        model, inputs_with_resets(3, 20), path, dynamic_shapes=WITH_RESETS, verbose=False
    )
    for batch, steps in SHAPES:
        inputs = inputs_with_resets(batch, steps)
        with torch.no_grad():
            wanted = model(*inputs)
        assert_same_bits(program(*inputs), wanted)
        torch.testing.assert_close(run_onnx(path, *inputs), [*wanted], rtol=1e-5, atol=1e-5)


def test_onnx_takes_a_tensor_for_each_input(tmp_path):
    x, h = torch.randn(3, 5, 5), torch.zeros(2, 3, 8)
    with pytest.raises(ValueError, match="two inputs are the same tensor: give each input its own"):
        irevrnn_onnx.export(make_model(), (x, (h, h)), tmp_path / "model.onnx")


@needs_onnx
def test_onnx_is_for_single_and_double_precision(tmp_path):
    path, x = tmp_path / "model.onnx", torch.randn(3, 20, 5)
    for dtype in (torch.float16, torch.bfloat16):
        message = f"for float32 and float64; got a tensor of {dtype}: call model.float"
        with pytest.raises(ValueError, match=message):
            irevrnn_onnx.export(make_model().to(dtype), (x.to(dtype),), path)
    for activation in ACTIVATIONS:  # onnxruntime does not have every operator in float64
        model = make_model(activation=activation).double().eval()
        irevrnn_onnx.export(model, (x.double(),), path, verbose=False)
        torch.testing.assert_close(run_onnx(path, x.double()), tree_leaves(model(x.double())))


def test_onnx_is_for_inference(tmp_path):
    model, x = make_model(), torch.randn(3, 20, 5)
    with pytest.raises(ValueError, match="model.eval"):
        irevrnn_onnx.export(model.train(), (x,), tmp_path / "model.onnx")


@needs_onnx
@pytest.mark.parametrize("chosen", [
    {}, {"turns": "input", "input_gate": True}, {"forgets": "input"},
    {"turns": "input", "forgets": "input"}, {"turns": "input", "forgets": False},
], ids=str)  # fmt: skip
def test_a_stack_of_blocks(tmp_path, chosen):
    oscillates = {"shortest_period": 2.5, "longest_period": 20} | chosen  # so couplings matter
    blocks = [IRevBlock(6, 8, norm=None, **oscillates), IRevBlock(6, 4, **oscillates)]
    for name, parameter in nn.ModuleList(blocks).named_parameters():
        if "_gate.weight" in name:
            nn.init.normal_(parameter)
    model, path = IRevStack([nn.Linear(5, 6), *blocks]).eval(), tmp_path / "model.onnx"
    example, x = (torch.randn(4, 20, 5),), torch.randn(2, 77, 5)
    with torch.no_grad():
        program = export(model, example, dynamic_shapes=(ANY,)).module()
    torch.testing.assert_close(program(x), model(x), rtol=1e-4, atol=1e-5)
    irevrnn_onnx.export(model, example, path, dynamic_shapes=(ANY,), verbose=False)
    assert_onnx_is(model, path)
