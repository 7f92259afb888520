"""The registered operators: opcheck, and what they refuse."""

import pytest
import torch
from torch.autograd import forward_ad
from torch.library import opcheck

from irevrnn.kernels.ops import NOTHING_SAVED
from tests.cases import make_inputs, opcheck_scan
from tests.fixed_cases import KERNELS


@pytest.mark.parametrize(("dtype", "vectorize"), KERNELS.values(), ids=KERNELS)
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("interval", "couplings"), [(0, 3), (16, 3), (16, 0)])
@pytest.mark.parametrize("with_resets", [True, False])
def test_opcheck(kernels, with_resets, interval, couplings, packed, dtype, vectorize):
    case, resets, sizes = make_inputs(40, 2, 9, couplings, dtype), torch.rand(40, 2) < 0.2, None
    if packed:
        case = case._replace(z=case.z.detach().flatten(0, 1).requires_grad_())
        resets, sizes = resets.flatten(), torch.full((40,), 2)
    resets = resets if with_resets else None
    opcheck_scan(case, sizes, "relu", "tanh", interval, vectorize, resets)


@pytest.mark.parametrize("vectorize", [True, False])
def test_opcheck_without_a_backward_pass(kernels, vectorize):
    case = [x.detach() for x in make_inputs(40, 2, 9, 3, torch.float32)]
    opcheck(torch.ops.irevrnn.scan.default, (*case, None, "relu", "tanh", NOTHING_SAVED, vectorize))


def test_a_backward_pass_of_a_scan_that_saved_nothing_is_refused(kernels):
    case = make_inputs(40, 2, 9, 3, torch.float32)
    out, *_ = torch.ops.irevrnn.scan(*case, None, "relu", "tanh", NOTHING_SAVED, True)
    with pytest.raises(ValueError, match="saved nothing.*memory='store'"):
        out.sum().backward()


def test_the_operator_refuses_what_does_not_fit(kernels):
    z, h_0, c_0, u, a, b = make_inputs(4, 2, 3, 1, torch.float32)
    op = torch.ops.irevrnn.scan
    options = ("relu", "tanh", 16, True)
    with pytest.raises(ValueError, match="z must be .* got .4, 2, 3"):
        op(z, h_0[:1], c_0, u, a, b, None, *options)
    with pytest.raises(ValueError, match="c_0 must be Float of shape .2, 3.* got Float .*1, 3"):
        op(z, h_0, c_0[:1], u, a, b, None, *options)
    with pytest.raises(ValueError, match="u must be Float .* got Double"):
        op(z, h_0, c_0, u.double(), a, b, None, *options)
    with pytest.raises(ValueError, match="kernels have no activation swish"):
        op(z, h_0, c_0, u, a, b, None, "swish", "tanh", 16, True)
    for dtype in (torch.int32, torch.bfloat16):
        with pytest.raises(ValueError, match="z must be float32 or float64 on cpu"):
            op(*(x.to(dtype) for x in (z, h_0, c_0, u, a, b)), None, *options)
    for interval in (-2, 17):
        with pytest.raises(ValueError, match="interval must be 0, 16, or -1"):
            op(z, h_0, c_0, u, a, b, None, "relu", "tanh", interval, True)


def test_the_operator_drops_no_tangent(kernels):
    z, *rest = (x.detach() for x in make_inputs(3, 2, 4, 1, torch.float32))
    options = (None, "relu", "tanh", NOTHING_SAVED, True)
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match="jvp is not implemented"):
        torch.ops.irevrnn.scan(forward_ad.make_dual(z, z), *rest, *options)
