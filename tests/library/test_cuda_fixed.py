"""Fixed point on a GPU: the bits of the CPU, the gradient, and the memory as an equation."""

import math
import os

import pytest
import torch

from irevrnn import IRevRNN, ReversalError
from irevrnn.kernels.activations import ACTIVATIONS
from irevrnn.kernels.backend import choose_backend
from irevrnn.recurrences.fixed_scan import States
from tests.cases import assert_same_bits
from tests.fixed_cases import (
    back,
    every_batch,
    every_g,
    forward,
    is_undone,
    make_case,
    make_packed_case,
)

pytestmark = [
    pytest.mark.usefixtures("kernels"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
SIZES = [(1, 1), (3, 5), (2, 64), (1, 129), (5, 300)]
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


@pytest.fixture(autouse=True)
def _cuda_kernels():
    if torch.cuda.is_available() and choose_backend("cuda", torch.float32) == "python":
        pytest.fail("there is a GPU, but no CUDA kernels")


def to_gpu(z, states, weights):
    there = States(*(x.cuda() for x in states.tensors))
    return z.cuda(), there, weights._replace(
        u=weights.u.cuda(), a=weights.a.cuda(), b=weights.b.cuda()
    )  # fmt: skip


@every_g
@dtypes
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("couplings", range(7))
def test_the_gpu_gives_the_bits_of_the_cpu(couplings, size, dtype, activation):
    """All that comes out, words and counts too. In float64, f is one that rounds alike."""
    f = ACTIVATIONS if dtype == torch.float32 else ("relu", "leaky_relu", "identity")
    case = make_case(20, *size, couplings, dtype, activation, list(f)[couplings % len(f)])
    on_cpu, on_gpu = forward(*case, False), forward(*to_gpu(*case), False)
    assert on_cpu[7] == on_gpu[7] == -1  # in range: else outputs have no meaning
    assert_same_bits([x.cpu() for x in (*on_gpu[:7], *on_gpu[8:])], (*on_cpu[:7], *on_cpu[8:]))


@every_g
@dtypes
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("couplings", [0, 1, 3, 4, 6])
@pytest.mark.parametrize("steps", [1, 300])
def test_every_step_is_undone(steps, couplings, size, dtype, activation):
    case = to_gpu(*make_case(steps, *size, couplings, dtype, activation))
    result = forward(*case, False)
    assert is_undone(case[1], result, back(case[0], result, case[2], False))


@every_g
@dtypes
@every_batch
@pytest.mark.parametrize("hidden", [1, 64, 129])
def test_packed_sequences(sizes, hidden, dtype, activation):
    *case, resets, counts = make_packed_case(sizes, hidden, dtype, activation, 0.1)
    wanted = forward(*case, False, resets, counts)
    z, states, weights = to_gpu(*case)
    packing = resets.cuda(), counts
    result = forward(z, states, weights, False, *packing)
    assert_same_bits([x.cpu() for x in result[:7]], wanted[:7])
    assert is_undone(states, result, back(z, result, weights, False, *packing))


@every_g
def test_control_a_flipped_bit_is_noticed(activation):
    case = to_gpu(*make_case(500, 2, 9, 2, torch.float32, activation))
    result = forward(*case, False)
    words = result[4].clone()
    words[len(words) // 2] ^= 1 << 7
    assert not is_undone(case[1], result, back(case[0], result, case[2], False, words=words))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e7])
def test_the_first_step_out_of_range_is_reported(value):
    z, states, weights = to_gpu(*make_case(40, 2, 200, 2, torch.float32))
    z[23, 0, 2], z[17, 1, 199] = value, value
    assert forward(z, states, weights, False)[7] == 17
    states.h[1, 150] = 2**31 - 128
    assert forward(z, states, weights, False)[7] == 0


def test_hashes_are_those_of_the_cpu():
    h, c = torch.randint(-(2**31), 2**31, (2, 5, 33)).int()
    scales = torch.randint(0, 64, (2, 5, 33)).int()
    states = States(h, c, scales, *torch.randint(1, 2**32, (2, 16)))
    there = States(*(x.cuda() for x in states.tensors))
    assert states.hash() == there.hash().cpu()


def make_model(memory, **keywords):
    torch.manual_seed(0)
    options = {"num_layers": 2, "activation": "leaky_relu", "norm": "layer", **keywords}
    return IRevRNN(8, 64, memory=memory, device="cuda", **options)


def outcome(memory, **keywords):
    model = make_model(memory, **keywords)
    x = torch.randn(16, 700, 8, generator=torch.Generator().manual_seed(1))
    x = x.to(model.layers[0].recurrent_weight).requires_grad_()
    output, (h_n, c_n) = model(x)
    loss = output.square().mean() + h_n.sum() + c_n.sin().sum()
    return [output, h_n, c_n, *torch.autograd.grad(loss, [x, *model.parameters()])]


@every_g
@dtypes
def test_reversible_gives_the_gradient_of_store_fixed(monkeypatch, dtype, activation):
    monkeypatch.setattr("irevrnn.modules.base_stack.chunk_length", lambda *_: 96)
    options = {"activation": activation, "dtype": dtype}
    runs = [outcome(memory, **options) for memory in ("reversible", "store_fixed", "reversible")]
    for other in runs[1:]:
        assert_same_bits(runs[0], other)


def test_a_tampered_word_returns_no_gradient():
    def flip(tensor):
        flips = tensor.dtype == torch.int32 and tensor.dim() == 1
        return tensor ^ (1 << 5) if flips else tensor

    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, flip):
        output, _ = make_model("reversible")(torch.randn(4, 300, 8, device="cuda"))
    with pytest.raises(ReversalError, match=r"layer \d, chunk \d"):
        output.sum().backward()


def test_a_checkpoint_that_leads_elsewhere_is_an_error():
    x = torch.randn(4, 300, 8, device="cuda", requires_grad=True)
    output, _ = make_model("checkpoint")(x)
    x.data.add_(1)
    with pytest.raises(RuntimeError, match=r"chunk \d: .* the input was changed"):
        output.sum().backward()


@pytest.mark.skipif(
    "PYTORCH_NO_CUDA_MEMORY_CACHING" in os.environ, reason="PyTorch's allocator is switched off"
)
@pytest.mark.parametrize(("activation", "words"), [("identity", 1), ("leaky_relu", 1), ("relu", 2)])
def test_memory_is_an_equation(activation, words):
    """The largest moment of a forward pass, within what the allocator rounds up."""
    steps, batch, hidden = 64, 64, 512
    lanes = batch * hidden
    z, states, weights = to_gpu(*make_case(steps, batch, hidden, 1, torch.float32, activation))
    forward(z, states, weights, False)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = torch.ops.irevrnn.fixed_scan(
        z, states.tensors, 0, *weights.arguments, True, False, False
    )
    peak = torch.cuda.max_memory_allocated() - before
    saved = 4 * z.numel() + 32 * lanes + 8 * lanes + 4 * len(result[2])  # out, states, counts
    columns = 4 * (words * z.numel() + 40 * lanes)
    room = columns + 2 * 8 * lanes  # starts, and sums on their way to them
    assert saved <= torch.cuda.memory_allocated() - before <= saved + 2**22
    assert saved <= peak <= saved + room + 2**23


def test_a_stream_of_its_own():
    case = to_gpu(*make_case(200, 4, 100, 2, torch.float32))
    wanted = forward(*case, False)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)  # a kernel on another stream would overtake this
        z, states, weights = case
        late = States(*(x.clone() for x in states.tensors))
        got = forward(z.clone(), late, weights, False)
    stream.synchronize()
    assert_same_bits(wanted, got)
