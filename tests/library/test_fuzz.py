"""Random problems against the reference: a few in ``make test``, thousands in ``make fuzz``."""

import os

import pytest
import torch
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from irevrnn import IRevRNN, scan
from irevrnn.kernels import reference
from irevrnn.kernels.activations import ACTIVATIONS
from irevrnn.recurrences import fixed_scan
from irevrnn.recurrences.block import FORGOTTEN_BITS
from irevrnn.recurrences.oscillator import Weights
from irevrnn.strategies.rules import CHUNKWISE, IN_FIXED_POINT
from tests.cases import assert_same_bits

pytestmark = pytest.mark.usefixtures("kernels")
CASES = int(os.environ.get("IREVRNN_FUZZ", "25"))
fuzz = settings(
    max_examples=CASES,
    deadline=None,
    derandomize=CASES < 100,  # a test run is the same every time; fuzzing looks for the new
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
#: Largest error against float64, relative to the norm of a tensor. In float32 a value beside a kink
#: of relu may fall on its other side, and its gradient with it.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-2}

sizes = st.integers(1, 6)
names = st.sampled_from(sorted(ACTIVATIONS))
dtypes = st.sampled_from([torch.float32, torch.float64])
hidden_sizes = st.one_of(st.integers(1, 20), st.sampled_from([31, 32, 33, 63, 64, 65, 129]))
step_counts = st.one_of(st.integers(1, 40), st.sampled_from([47, 48, 49, 100]))


@pytest.fixture
def backend(monkeypatch):
    return lambda name: monkeypatch.setenv("IREVRNN_BACKEND", name)


def near(got, wanted, tolerance, floor=1e-3):
    """Relative to the norm of each tensor, or to ``floor`` where that is larger."""
    for x, y in zip(got, wanted, strict=True):
        assert x.shape == y.shape
        assert (x.double() - y).norm() <= tolerance * (floor + y.norm())


def strided(x, layout):
    """The same values behind other strides."""
    if layout == "transposed":
        return x.transpose(0, 1).contiguous().transpose(0, 1)
    if layout == "sliced":
        return torch.cat([x, x], -1)[..., : x.shape[-1]]
    if layout == "stepped":
        return x.repeat_interleave(2, 0)[::2]
    return x


def run(function, leaves, wanted_outputs, seed):
    """Outputs, and gradients of all leaves from those outputs that are wanted."""
    outputs = function(*leaves)
    drawn = torch.Generator().manual_seed(seed)
    upstream = [torch.randn(y.shape, generator=drawn, dtype=torch.float64) for y in outputs]
    chosen = [i for i, use in enumerate(wanted_outputs) if use]
    gradients = torch.autograd.grad(
        [outputs[i] for i in chosen], leaves, [upstream[i].to(outputs[i].dtype) for i in chosen],
        allow_unused=True, materialize_grads=True,
    )  # fmt: skip
    return [*(y.detach() for y in outputs), *gradients]


@fuzz
@given(
    data=st.data(),
    steps=step_counts,
    batch=sizes,
    hidden=hidden_sizes,
    couplings=st.integers(0, 5),
    dtype=dtypes,
    activation=names,
    coupling_activation=names,
    layout=st.sampled_from(["contiguous", "transposed", "sliced", "stepped"]),
    packed=st.booleans(),
    often=st.sampled_from([None, 0.03, 0.3, 1.0]),
    seed=st.integers(0, 2**31),
    outputs=st.sampled_from([(1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1)]),
)
def test_scan_on_every_backend(
    backend, data, steps, batch, hidden, couplings, dtype, activation, coupling_activation, layout,
    packed, often, seed, outputs,
):  # fmt: skip
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    u = (2 * torch.rand(hidden, generator=generator, dtype=torch.float64) - 1).sign_()
    u *= data.draw(st.sampled_from([0.0, 1e-6, 0.5, 0.9, 1.0]))
    scale = 0.2 if coupling_activation in ("tanh", "sigmoid") else 0.03  # unbounded f may explode
    z = draw(steps, batch, hidden)
    batch_sizes = None
    if packed:
        lengths = data.draw(st.lists(st.integers(1, steps), min_size=batch, max_size=batch))
        lengths[0] = steps
        counts = torch.tensor(lengths)[:, None] > torch.arange(steps)
        batch_sizes = counts.sum(0)
        z = z.flatten(0, 1)[: int(batch_sizes.sum())]
    case = [
        z, draw(batch, hidden), draw(batch, hidden), u,
        scale * draw(couplings, hidden), scale * draw(couplings, hidden),
    ]  # fmt: skip
    resets = None if often is None else torch.rand(z.shape[:-1], generator=generator) < often
    case = [x.to(dtype) for x in case]  # both start from the same numbers
    options = (activation, coupling_activation)

    def oracle(z, *rest):
        return reference.scan(z, *rest, *options, batch_sizes, resets)

    wanted = run(oracle, [x.double().requires_grad_() for x in case], outputs, seed)
    for name in ("auto", "cpp", "python"):
        backend(name)
        results = []
        for memory in ("store", "recompute"):

            def ours(z, *rest, memory=memory):
                z = strided(z, layout)
                return scan(z, *rest, *options, memory, batch_sizes, resets)

            results.append(run(ours, [x.clone().requires_grad_() for x in case], outputs, seed))
        near(results[0], wanted, TOLERANCE[dtype])
        if name != "python":  # autograd may add in another order
            assert_same_bits(*results)
        else:
            near(results[1], wanted, TOLERANCE[dtype])


@fuzz
@given(
    data=st.data(),
    steps=step_counts,
    batch=sizes,
    features=st.integers(1, 9),
    hidden=st.integers(1, 9),
    layers=st.integers(1, 3),
    couplings=st.integers(0, 3),
    dtype=dtypes,
    norm=st.sampled_from([None, "layer"]),
    activation=names,
    residual=st.booleans(),
    batch_first=st.booleans(),
    bidirectional=st.booleans(),
    return_sequence=st.booleans(),
    with_lengths=st.booleans(),
    chunk=st.sampled_from([16, 32, 48]),
    seed=st.integers(0, 2**31),
)
def test_layer_under_every_strategy(
    monkeypatch, data, steps, batch, features, hidden, layers, couplings, dtype, norm, activation,
    residual, batch_first, bidirectional, return_sequence, with_lengths, chunk, seed,
):  # fmt: skip
    monkeypatch.setattr("irevrnn.modules.base_stack.chunk_length", lambda *_: chunk)
    options = {
        "num_couplings": couplings, "activation": activation, "norm": norm, "residual": residual,
        "batch_first": batch_first, "bidirectional": bidirectional,
    }  # fmt: skip
    torch.manual_seed(seed)
    oracle = IRevRNN(features, hidden, layers, dtype=torch.float64, memory="store", **options)
    x = torch.randn(*((batch, steps) if batch_first else (steps, batch)), features).to(dtype)
    hidden_0 = torch.randn(2, layers * (1 + bidirectional), batch, hidden).to(dtype)
    lengths = None
    if with_lengths:
        lengths = data.draw(st.lists(st.integers(1, steps), min_size=batch, max_size=batch))

    def function(model):
        def forward(x, hidden_0, *_):
            output, states = model(
                x, tuple(hidden_0), lengths=lengths, return_sequence=return_sequence
            )
            return output, *states

        return forward

    def results_of(model, dtype):
        leaves = [v.to(dtype).requires_grad_() for v in (x.detach(), hidden_0.detach())]
        return run(function(model), [*leaves, *model.parameters()], (1, 1, 1), seed)

    monkeypatch.setenv("IREVRNN_BACKEND", "python")
    wanted = results_of(oracle, torch.float64)
    monkeypatch.setenv("IREVRNN_BACKEND", "auto")
    exact = {}
    for memory in ("store", "recompute", *CHUNKWISE):
        if memory in CHUNKWISE and bidirectional:
            continue
        if memory in IN_FIXED_POINT and activation not in FORGOTTEN_BITS:
            continue
        model = IRevRNN(features, hidden, layers, dtype=dtype, memory=memory, **options)
        model.load_state_dict(oracle.state_dict())
        got = results_of(model, dtype)
        if memory in IN_FIXED_POINT:
            exact[memory] = got
            near(got[:3], wanted[:3], 5e-2)
        else:
            # Normalising one or two units leaves signs alone: gradients of 0, but for rounding.
            near(got, wanted, TOLERANCE[dtype], floor=1e-3 if norm is None else 1.0)
    if exact:
        assert_same_bits(*exact.values())


@fuzz
@given(
    steps=step_counts,
    batch=sizes,
    hidden=hidden_sizes,
    couplings=st.integers(0, 4),
    dtype=dtypes,
    vectorized=st.booleans(),
    activation=st.sampled_from([*FORGOTTEN_BITS]),
    coupling_activation=st.sampled_from(["tanh", "sigmoid", "identity"]),
    lowest=st.sampled_from([0.0, 0.5, 0.99]),
    size=st.sampled_from([1e-4, 1.0, 100.0]),
    often=st.sampled_from([None, 0.03, 0.3, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_fixed_point_goes_back(
    backend, steps, batch, hidden, couplings, dtype, vectorized, activation, coupling_activation,
    lowest, size, often, seed,
):  # fmt: skip
    backend("auto" if vectorized else "cpp")
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return (size * torch.randn(*shape, generator=generator)).to(dtype)

    u = lowest + (1 - lowest) * torch.rand(hidden, generator=generator)
    u *= (torch.rand(hidden, generator=generator) < 0.5) * 2 - 1
    u = u.to(dtype)
    a, b = (0.1 * draw(couplings, hidden) / size for _ in range(2))
    weights = Weights(u, a, b, activation, coupling_activation)
    resets = None if often is None else torch.rand(steps, batch, generator=generator) < often
    z, start = draw(steps, batch, hidden), fixed_scan.States.of(*draw(2, batch, hidden))
    try:
        there, words, counts = fixed_scan.forward(z, start, weights, record=True, resets=resets)
    except OverflowError:
        assert coupling_activation == "identity"  # nothing bounds what such couplings add up
        reject()
    kept, _, _ = fixed_scan.forward(z, start, weights, save=True, resets=resets)
    buffer = fixed_scan.Buffer(words, counts.cumsum(0) - counts, counts)
    back, left = fixed_scan.inverse(z, there.after, buffer, weights, resets)
    assert not left.counts.any()
    assert (
        all(map(torch.equal, back.before[:2], start[:2])) and (back.before.partial_words == 1).all()
    )
    assert torch.equal(back.out, there.out) and torch.equal(back.saved, kept.saved)
