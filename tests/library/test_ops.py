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
@pytest.mark.parametrize(("interval", "couplings"), [(0, 3), (16, 3), (40, 0)])
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


@pytest.mark.parametrize(("change", "message"), [
    ({"z": lambda x: x[0]}, r"z must be \(T, B, H\), or .*; got \[2, 3\]"),
    ({"z": lambda x: x[:0]}, "z must have a step"),
    ({"z": lambda x: x.int()}, "must be Int of shape"),
    ({"h_0": lambda x: x[:1]}, r"z must be .* got .4, 2, 3"),
    ({"h_0": lambda x: x.double()}, r"h_0 must be Float of shape .2, 3. on cpu; got Double"),
    ({"c_0": lambda x: x[:1]}, "c_0 must be Float of shape .2, 3.* got Float .*1, 3"),
    ({"u": lambda x: x[None]}, r"u must be Float of shape \[3\]"),
    ({"a": lambda x: x[0]}, r"a must be Float of shape \[3, 3\]"),
    ({"b": lambda x: x.repeat(2, 1)}, r"b must be Float of shape \[1, 3\] .* \[2, 3\]"),
])  # fmt: skip
def test_the_operator_refuses_tensors_that_do_not_fit(kernels, change, message):
    case = make_inputs(4, 2, 3, 1, torch.float32)
    case = case._replace(**{name: of(getattr(case, name)) for name, of in change.items()})
    with pytest.raises(ValueError, match=message):
        torch.ops.irevrnn.scan(*case, None, "relu", "tanh", 16, True)


@pytest.mark.parametrize(("options", "message"), [
    (("swish", "tanh", 16), "kernels have no activation swish"),
    (("relu", "tanh", -2), "interval must be from 0 to 64"),
    (("relu", "tanh", 65), "interval must be from 0 to 64"),
])  # fmt: skip
def test_the_operator_refuses_options(kernels, options, message):
    with pytest.raises(ValueError, match=message):
        torch.ops.irevrnn.scan(*make_inputs(4, 2, 3, 1, torch.float32), None, *options, True)


def test_the_operator_refuses_half_precision(kernels):
    case = [x.detach().bfloat16() for x in make_inputs(4, 2, 3, 1, torch.float32)]
    with pytest.raises(ValueError, match="z must be float32 or float64 on cpu"):
        torch.ops.irevrnn.scan(*case, None, "relu", "tanh", 16, True)


def test_the_operator_drops_no_tangent(kernels):
    z, *rest = (x.detach() for x in make_inputs(3, 2, 4, 1, torch.float32))
    options = (None, "relu", "tanh", NOTHING_SAVED, True)
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match="jvp is not implemented"):
        torch.ops.irevrnn.scan(forward_ad.make_dual(z, z), *rest, *options)
