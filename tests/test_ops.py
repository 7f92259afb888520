"""The registered operators: opcheck, torch.compile, and what they refuse."""

import pytest
import torch
from torch.library import opcheck

from irevrnn import IRevRNN, scan

from .cases import make_inputs, run


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("vectorize", [True, False])
@pytest.mark.parametrize("interval", [0, 16, 40])
@pytest.mark.parametrize("couplings", [0, 3])
def test_opcheck(kernels, dtype, vectorize, interval, couplings):
    case = make_inputs(40, 2, 9, couplings, dtype)
    options = ("relu", "tanh", interval, vectorize)
    opcheck(torch.ops.irevrnn.scan.default, (*case, None, *options))
    with torch.no_grad():
        out, h_n, c_n, held = torch.ops.irevrnn.scan(*case, None, *options)
    saved = (out, held, *(x.detach() for x in case[1:]))
    for gradients in ((torch.ones_like(out), h_n, c_n), (None, h_n, None)):
        opcheck(torch.ops.irevrnn.scan_backward.default, (*gradients, *saved, None, *options))


@pytest.mark.parametrize("memory", ["store", "recompute"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compiled_scan_gives_the_same_bits(kernels, memory, dtype):
    case = make_inputs(40, 2, 9, 3, dtype)
    compiled = torch.compile(scan, fullgraph=True, backend="aot_eager")
    for got, want in zip(
        run(compiled, case, memory=memory), run(scan, case, memory=memory), strict=True
    ):
        assert torch.equal(got, want)


@pytest.mark.parametrize("memory", ["store", "recompute"])
def test_compiled_layer_with_inductor(kernels, memory):
    torch.manual_seed(0)
    layer = IRevRNN(5, 16, 2, norm="layer", memory=memory)
    x = torch.randn(3, 30, 5)

    def gradients(model):
        layer.zero_grad()
        output, (h_n, c_n) = model(x)
        (output.square().mean() + h_n.mean() + c_n.mean()).backward()
        return [output.detach()] + [p.grad.clone() for p in layer.parameters()]

    compiled = torch.compile(layer, fullgraph=True)
    torch.testing.assert_close(gradients(compiled), gradients(layer), rtol=1e-4, atol=1e-6)


def test_the_operator_refuses_what_does_not_fit(kernels):
    z, h_0, c_0, u, a, b = make_inputs(4, 2, 3, 1, torch.float32)
    op = torch.ops.irevrnn.scan
    options = ("relu", "tanh", 16, True)
    with pytest.raises(ValueError, match="h_0 must have shape"):
        op(z, h_0[:1], c_0, u, a, b, None, *options)
    with pytest.raises(ValueError, match="u must have the dtype"):
        op(z, h_0, c_0, u.double(), a, b, None, *options)
    with pytest.raises(ValueError, match="activation must be one of"):
        op(z, h_0, c_0, u, a, b, None, "swish", "tanh", 16, True)
    with pytest.raises(ValueError, match="float32 or float64"):
        op(*(x.half() for x in (z, h_0, c_0, u, a, b)), None, *options)
    with pytest.raises(ValueError, match="interval"):
        op(z, h_0, c_0, u, a, b, None, "relu", "tanh", -1, True)
