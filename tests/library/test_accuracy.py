"""float32 gradients are as near to the float64 reference as eager float32 autograd is."""

import pytest
import torch

from experiments.process import threads
from irevrnn import scan
from irevrnn.kernels import reference
from tests.cases import Inputs, make_inputs, run

NAMES = ("out", "h_n", "c_n", "z", "h_0", "c_0", "u", "a", "b")
HIDDEN = 512  # many channels: the largest error of a few is a matter of luck, for eager as for us
#: Problems that are drawn at each length.
CASES = {784: 2, 10_000: 1}


def channel_errors(got, wanted):
    """Relative error of each channel: norm of its error over norm of its values, (H,)."""
    wanted = wanted.reshape(-1, wanted.shape[-1])
    error = got.double().reshape(wanted.shape) - wanted
    return error.norm(dim=0) / wanted.norm(dim=0).clamp_min(1e-300)


@pytest.fixture(autouse=True)
def one_thread():
    """Eager autograd's small operators take many times as long on two."""
    with threads(1):
        yield


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "activation", "coupling_activation"), [
    (784, "relu", "tanh"), (784, "tanh", "tanh"), (784, "leaky_relu", "sigmoid"),
    (784, "identity", "tanh"), (784, "sigmoid", "relu"),
    (10_000, "relu", "tanh"), (10_000, "identity", "tanh"),
])  # fmt: skip
def test_errors_are_at_most_twice_those_of_eager(kernels, steps, activation, coupling_activation):
    options = (activation, coupling_activation)
    ours, eager = ([[] for _ in NAMES] for _ in range(2))
    for seed in range(CASES[steps]):
        case = make_inputs(steps, 4, HIDDEN, 3, torch.float32, scale=0.01, seed=seed)
        exact = Inputs(*(x.detach().double().requires_grad_() for x in case))
        wanted = run(reference.scan, exact, *options)
        for errors, function in ((ours, scan), (eager, reference.scan)):
            results = run(function, case, *options)
            for pool, got, want in zip(errors, results, wanted, strict=True):
                pool.append(channel_errors(got, want))
    for name, mine, other in zip(NAMES, ours, eager, strict=True):
        mine, other = torch.cat(mine), torch.cat(other)
        assert mine.median() <= 2 * other.median(), name
        assert mine.max() <= 2 * other.max(), name
