"""The selective oscillator: rotations and decays of each step, in floating and in fixed point."""

import math

import pytest
import torch
from torch.library import opcheck

from irevrnn.kernels import reference
from irevrnn.recurrences import fixed_scan
from irevrnn.recurrences.fixed_scan import States
from irevrnn.recurrences.selective import Turns
from tests.cases import (
    KINDS,
    LENGTHS,
    assert_near,
    assert_same_bits,
    assert_same_with_any_threads,
    make_resets,
    upstream,
)
from tests.fixed_cases import back, bits_of, every_kernel, forward, is_undone
from tests.library.gpu_threads import by_gpu_threads

pytestmark = pytest.mark.usefixtures("kernels")
SHAPES = [(1, 1, 1), (1, 3, 5), (16, 2, 8), (33, 3, 37), (200, 1, 70), (17, 4, 64)]
#: Whether angles, and decays, are of each step; None where there are no decays.
FORMS = [(True, True), (True, False), (True, None), (False, True), (False, False), (False, None)]
ANGLES = (0.0, math.pi / 2, -math.pi / 2, math.pi, 1e-6, 100.0)
DECAYS = (0.0, 1.0, 1e-6, 0.5, -1.0, 1 - 2**-24)
TOLERANCES = {torch.float64: 1e-11, torch.float32: 2e-5}
dtypes = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)
forms = pytest.mark.parametrize("form", FORMS, ids=str)


def make_case(steps, batch, hidden, form=(True, True), dtype=torch.float64, seed=0, size=1.0):
    """z, h_0, c_0, angles and decays, which hold the awkward ones."""
    generator = torch.Generator().manual_seed(seed)

    def draw(function, *shape):
        return function(*shape, generator=generator, dtype=torch.float64)

    def awkward(x, values):
        places = draw(torch.rand, *x.shape) < 0.2
        chosen = torch.randint(len(values), x.shape, generator=generator)
        return torch.where(places, torch.tensor(values, dtype=x.dtype)[chosen], x)

    rows = (steps, batch, hidden)
    z, h, c = (size * draw(torch.randn, *shape) for shape in (rows, rows[1:], rows[1:]))
    angle = awkward(4 * draw(torch.randn, *rows[not form[0] :]), ANGLES)
    tensors = [z, h, c, angle]
    if form[1] is not None:
        tensors.append(awkward(draw(torch.rand, *rows[not form[1] :]), DECAYS))
    return [x.to(dtype).requires_grad_() for x in tensors]


def by_complex_numbers(z, h, c, angle, decay=None):
    """Run the recurrence as s = decay * exp(i angle) * s + z: an implementation of its own."""
    state, outputs = torch.complex(h, c), []
    for t, z_t in enumerate(z):
        turn = angle[t] if angle.dim() == 3 else angle
        keep = torch.ones_like(turn) if decay is None else decay[t] if decay.dim() == 3 else decay
        state = torch.complex(keep * torch.cos(turn), keep * torch.sin(turn)) * state + z_t
        outputs.append(state.real)
    return torch.stack(outputs), state.real, state.imag


def scan(z, h, c, angle, decay=None, **layout):
    return Turns(angle, decay).scan(z, (h, c), **layout)


def run(function, case, **options):
    """Outputs and gradients."""
    outputs = function(*case, **options)
    gradients = torch.autograd.grad(
        outputs, case, upstream(outputs), allow_unused=True, materialize_grads=True
    )
    return (*(x.detach() for x in outputs), *gradients)


def as_float(case, dtype):
    return [x.detach().to(dtype).requires_grad_() for x in case]


# --- in floating point ---------------------------------------------------------------------------


@forms
@shapes
def test_the_reference_is_a_product_of_complex_numbers(shape, form):
    case = make_case(*shape, form)
    assert_near(run(reference.selective_scan, case), run(by_complex_numbers, case), 1e-12)


@forms
@shapes
@pytest.mark.parametrize("backend", ["auto", "cpp", "python"])
@dtypes
def test_outputs_and_gradients(shape, form, dtype, backend, monkeypatch):
    monkeypatch.setenv("IREVRNN_BACKEND", backend)
    case = as_float(make_case(*shape, form), dtype)
    wanted = run(by_complex_numbers, as_float(case, torch.float64))
    assert_near(run(scan, case), wanted, TOLERANCES[dtype])


@dtypes
def test_long_sequences(dtype):
    """Gradients of what all steps share are sums of thousands of products."""
    case = make_case(4000, 2, 19, (False, False), dtype)
    with torch.no_grad():
        case[3].mul_(0.01)
        case[4].mul_(0.1).add_(0.9)
    wanted = run(by_complex_numbers, as_float(case, torch.float64))
    assert_near(run(scan, case), wanted, 20 * TOLERANCES[dtype])


@forms
def test_any_number_of_threads_gives_the_same_bits(form):
    case = make_case(40, 5, 70, form, torch.float32)
    assert_same_with_any_threads(lambda: run(scan, case))


@forms
@pytest.mark.parametrize("kind", KINDS)
@dtypes
def test_resets(kind, form, dtype):
    case, resets = make_case(70, 3, 21, form, dtype), make_resets(kind, 70, 3)

    def pieces(z, h, c, *turns):
        whole = [x.expand(z.shape) for x in turns]
        outputs = []
        for i in range(z.shape[1]):
            h_i, c_i, begun = h[i : i + 1], c[i : i + 1], 0
            ends = [*resets[1:, i].nonzero().flatten().add(1).tolist(), len(z)]
            rows = []
            for end in ends:
                if resets[begun, i]:
                    h_i, c_i = torch.zeros_like(h_i), torch.zeros_like(c_i)
                parts = [x[begun:end, i : i + 1] for x in (z, *whole)]
                out, h_i, c_i = by_complex_numbers(parts[0], h_i, c_i, *parts[1:])
                rows.append(out)
                begun = end
            outputs.append((torch.cat(rows), h_i, c_i))
        out, h_n, c_n = zip(*outputs, strict=True)
        return torch.cat(out, 1), torch.cat(h_n), torch.cat(c_n)

    wanted = run(pieces, as_float(case, torch.float64))
    assert_near(run(scan, case, resets=resets), wanted, TOLERANCES[dtype])


def packed_case(kind, form, dtype, seed=0):
    lengths = LENGTHS[kind]
    dense = make_case(max(lengths), len(lengths), 9, form, dtype, seed)
    sizes = torch.tensor([sum(n > t for n in lengths) for t in range(max(lengths))])

    def packed(x):
        if x.dim() == 2:
            return x
        return torch.cat([x[t, :n] for t, n in enumerate(sizes)]).detach().requires_grad_()

    return dense, [packed(x) for x in dense], sizes, lengths


@forms
@pytest.mark.parametrize("kind", LENGTHS)
@dtypes
def test_packed_sequences(kind, form, dtype):
    dense, packed, sizes, lengths = packed_case(kind, form, dtype)
    out, h_n, c_n = scan(*packed, batch_sizes=sizes)
    for i, length in enumerate(lengths):
        one = [x[:length, i : i + 1] if x.dim() == 3 else x[i : i + 1] for x in dense]
        wanted = by_complex_numbers(*(x.double() for x in one))
        rows = [int(sizes[:t].sum()) + i for t in range(length)]
        got = out[rows], h_n[i], c_n[i]
        assert_near(got, [x[:, 0] if x.dim() == 3 else x[0] for x in wanted], TOLERANCES[dtype])
    options = {"batch_sizes": sizes}
    wanted = run(reference.selective_scan, as_float(packed, torch.float64), **options)
    assert_near(run(scan, packed, **options), wanted, TOLERANCES[dtype])


@forms
@dtypes
def test_a_grid_of_threads(dtype, form):
    """The functions of a GPU's threads, which the CPU runs."""
    dense, resets = make_case(70, 3, 11, form, dtype), make_resets("at random", 70, 3)
    _, packed, sizes, _ = packed_case("around a segment", form, dtype)
    for case, layout in ((dense, {"resets": resets}), (packed, {"batch_sizes": sizes})):
        wanted = run(reference.selective_scan, as_float(case, torch.float64), **layout)
        with by_gpu_threads():
            assert_near(run(scan, case, **layout), wanted, TOLERANCES[dtype])


def test_inputs_need_not_be_contiguous():
    case = make_case(20, 3, 8)
    turned = [x.detach().transpose(0, -1).contiguous().transpose(0, -1) for x in case]
    wanted = run(by_complex_numbers, case)
    assert_near(run(scan, [x.requires_grad_() for x in turned]), wanted, 1e-11)


@forms
def test_operators(form):
    z, h, c, *turns = make_case(20, 2, 5, form)
    options = None, 16, False, None
    opcheck(torch.ops.irevrnn.selective_scan.default, (z, h, c, turns, *options))
    with torch.no_grad():
        out, h_n, c_n, saved = torch.ops.irevrnn.selective_scan(z, h, c, turns, *options)
    kept = [x.detach() for x in (out, saved, h, c)]
    arguments = (out, None, c_n, *kept, [x.detach() for x in turns], *options)
    opcheck(torch.ops.irevrnn.selective_scan_backward.default, arguments)


def test_transforms_run_the_reference():
    z, h, c, *turns = (x.detach() for x in make_case(7, 2, 3))
    tangent = torch.randn_like(turns[0])

    def of_angle(angle):
        return scan(z, h, c, angle, turns[1])[0]

    def plain(angle):
        return by_complex_numbers(z, h, c, angle, turns[1])[0]

    got, wanted = (torch.func.jvp(f, (turns[0],), (tangent,))[1] for f in (of_angle, plain))
    assert_near([got], [wanted], 1e-11)
    rows = torch.stack([turns[0], 2 * turns[0]])
    got = torch.func.vmap(of_angle)(rows)
    assert_near(got, [of_angle(x) for x in rows], 1e-11)


def test_second_derivatives_are_those_of_the_reference(monkeypatch):
    case = make_case(7, 2, 3)
    (gradient,) = torch.autograd.grad(scan(*case)[0].sum(), case[3:4], retain_graph=True)
    with pytest.raises(NotImplementedError, match="cannot be differentiated twice"):
        torch.autograd.grad(scan(*case)[0].sum(), case, create_graph=True)
    monkeypatch.setenv("IREVRNN_BACKEND", "python")
    (same,) = torch.autograd.grad(scan(*case)[0].sum(), case[3:4], create_graph=True)
    assert_near([same], [gradient], 1e-11)
    torch.autograd.grad(same.sum(), case)


# --- in fixed point ------------------------------------------------------------------------------


def fixed_case(shape, form, dtype, size=1.0):
    z, h, c, *turns = (x.detach() for x in make_case(*shape, form, dtype, size=size))
    return z, States.of(h, c), Turns(*turns, *[None] * (2 - len(turns)))


@every_kernel
@forms
@shapes
@pytest.mark.parametrize("size", [1.0, 1e-6, 3e3])
def test_every_step_is_undone(shape, form, dtype, vectorize, size):
    z, states, turns = fixed_case(shape, form, dtype, size)
    resets = make_resets("at random", *shape[:2])
    for given in (None, resets):
        result = forward(z, states, turns, vectorize, given)
        assert result.bad_step == -1
        assert is_undone(states, result, back(z, result, turns, vectorize, given))


@every_kernel
@forms
@pytest.mark.parametrize("kind", LENGTHS)
def test_packed_steps_are_undone(kind, form, dtype, vectorize):
    _, packed, sizes, _ = packed_case(kind, form, dtype)
    z, h, c, *turns = (x.detach() for x in packed)
    states, turns = States.of(h, c), Turns(*turns, *[None] * (2 - len(turns)))
    result = forward(z, states, turns, vectorize, None, sizes)
    assert is_undone(states, result, back(z, result, turns, vectorize, None, sizes))


@forms
@dtypes
def test_steps_of_a_grid_are_undone(dtype, form):
    z, states, turns = fixed_case((70, 3, 11), form, dtype)
    resets = make_resets("at random", 70, 3)
    with by_gpu_threads():
        result = forward(z, states, turns, False, resets)
        assert is_undone(states, result, back(z, result, turns, False, resets))
    assert_same_bits(result, forward(z, states, turns, False, resets))


@forms
def test_vectors_give_the_bits_of_single_lanes(form):
    """Two implementations of the same arithmetic; only the bit stacks are of other lanes."""
    z, states, turns = fixed_case((300, 3, 37), form, torch.float32)
    vector, scalar = (forward(z, states, turns, vectorize) for vectorize in (True, False))
    for name in ("out", "h", "c", "saved", "scales"):
        assert_same_bits(getattr(vector, name), getattr(scalar, name))


@every_kernel
@forms
def test_values_are_those_of_floating_point(form, dtype, vectorize):
    z, states, turns = fixed_case((100, 3, 37), form, dtype)
    got = forward(z, states, turns, vectorize).out
    h, c = states.numbers.values(torch.float64)
    wanted = by_complex_numbers(z.double(), h, c, *(x.double() for x in turns.tensors))[0]
    assert_near([got], [wanted], 1e-5 if dtype == torch.float32 else 1e-6)


@every_kernel
def test_one_wrong_bit_is_not_undone(dtype, vectorize):
    """The control: with one bit of an angle changed, the inverse meets other states."""
    z, states, turns = fixed_case((50, 2, 9), (True, True), dtype)
    result = forward(z, states, turns, vectorize)
    integers, bit = (torch.int32, 12) if dtype == torch.float32 else (torch.int64, 41)
    turns.angle.view(integers)[25, 1, 3] ^= 1 << bit
    assert not is_undone(states, result, back(z, result, turns, vectorize))


@every_kernel
def test_the_gradient_is_that_at_the_states_that_were_visited(dtype, vectorize):
    case = make_case(100, 2, 13, (True, False), dtype)
    z, h, c, angle, decay = case
    states, turns = States.of(h.detach(), c.detach()), Turns(angle, decay)
    result = forward(z.detach(), states, Turns(angle.detach(), decay.detach()), vectorize)
    after = States(*result[1:3], result.scales, *states[3:])
    whole = fixed_scan.Pass(result.out, result.saved, states, after)
    outputs = turns.gradient(whole, z, (h, c), vectorize, None, None)
    gradients = torch.autograd.grad(outputs, case, upstream(outputs))
    wanted = run(by_complex_numbers, as_float(case, torch.float64))
    assert_near((*outputs, *gradients), wanted, 2e-5)


def test_turning_stores_nothing_in_a_million_steps():
    generator = torch.Generator().manual_seed(0)
    z = 1e-3 * torch.randn(1_000_000, 1, 8, generator=generator)
    angle = 6 * torch.rand(z.shape, generator=generator) - 3
    states = States.of(torch.full((1, 8), 0.5), torch.full((1, 8), 0.5))
    result = forward(z, states, Turns(angle, None), True)
    assert bits_of(result) == 0
    assert is_undone(states, result, back(z, result, Turns(angle, None), True))


@every_kernel
def test_a_rotation_keeps_the_norm(dtype, vectorize):
    """For any sequence of angles, where couplings with changing weights would have no bound."""
    generator = torch.Generator().manual_seed(0)
    z = torch.zeros(100_000, 1, 4, dtype=dtype)
    angle = (200 * torch.rand(z.shape, generator=generator) - 100).to(dtype)
    h, c = torch.randn(2, 1, 4, generator=generator, dtype=torch.float64).to(dtype)
    result = forward(z, States.of(h, c), Turns(angle, None), vectorize, None, None, False)
    values = States(*result[1:3], result.scales, *2 * [None]).numbers.values(torch.float64)
    before, after = (torch.hypot(*x) for x in ((h.double(), c.double()), values))
    torch.testing.assert_close(after, before, rtol=1e-3, atol=0)


@every_kernel
@pytest.mark.parametrize(("which", "value"), [
    ("angle", math.nan), ("angle", math.inf), ("decay", math.nan), ("decay", 1.001),
    ("decay", -1.001), ("decay", math.inf),
])  # fmt: skip
def test_impossible_turns_are_refused(which, value, dtype, vectorize):
    z, states, turns = fixed_case((40, 2, 9), (True, True), dtype)
    getattr(turns, which)[21, 1, 4] = value
    assert forward(z, states, turns, vectorize).bad_step == 21
    if vectorize or dtype == torch.float64:
        with pytest.raises(OverflowError, match="step 21: a value is NaN"):
            fixed_scan.forward(z, states, turns)
