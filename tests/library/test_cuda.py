"""The CUDA kernels on a GPU, against the CPU. Without one, they are only compiled."""

import itertools
import os

import pytest
import torch

from irevrnn import IRevRNN, scan
from irevrnn.kernels.activations import ACTIVATIONS
from irevrnn.kernels.backend import choose_backend
from tests.cases import (
    STATES,
    Inputs,
    assert_near,
    assert_same_bits,
    make_inputs,
    run,
    upstream,
)

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    pytest.mark.usefixtures("kernels", "cuda_kernels"),
]
#: Relative to the largest value: a GPU has the float32 formulas of the CPU, and its own tanh in
#: float64. Sums over lanes have another order.
TOLERANCES = {torch.float32: 2e-4, torch.float64: 1e-11}
MEMORY = ("store", "recompute")
OPTIONS = list(itertools.product(ACTIVATIONS, ACTIVATIONS))
SHAPES = [(1, 1, 1, 1), (33, 3, 129, 3), (50, 5, 100, 0), (130, 2, 7, 6), (17, 1, 31, 4)]
#: compute-sanitizer runs without PyTorch's allocator, whose numbers then stay 0.
allocated_by_pytorch = pytest.mark.skipif(
    "PYTORCH_NO_CUDA_MEMORY_CACHING" in os.environ, reason="PyTorch's allocator is switched off"
)
of_a_dtype = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
of_a_strategy = pytest.mark.parametrize("memory", MEMORY)


@pytest.fixture(scope="module")
def cuda_kernels():
    if choose_backend("cuda", torch.float32) != "cuda":
        pytest.fail("there is a GPU, but the CUDA operators were not built")


def to(case, device="cuda", dtype=None):
    return Inputs(*(x.detach().to(device, dtype).requires_grad_() for x in case))


def on_cpu(tensors):
    assert all(x.is_cuda for x in tensors)
    return [x.cpu() for x in tensors]


@of_a_dtype
@of_a_strategy
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_cpu_and_gpu_agree(shape, memory, dtype):
    case = to(make_inputs(*shape, torch.float64, scale=0.01), "cpu", dtype)
    for options in OPTIONS:
        wanted = run(scan, case, *options, memory)
        assert all(x.isfinite().all() for x in wanted)
        got = on_cpu(run(scan, to(case), *options, memory))
        assert_near(got, wanted, TOLERANCES[dtype])


@of_a_strategy
@pytest.mark.parametrize("couplings", range(6))
def test_a_gpu_has_the_bits_of_the_cpu_in_float32(memory, couplings):
    """One formula, one rounding: outputs, and all gradients but those of the weights."""
    case = make_inputs(40, 3, 70, couplings, torch.float32)
    for options in OPTIONS:
        wanted = run(scan, case, *options, memory)[STATES]
        got = run(scan, to(case), *options, memory)[STATES]
        assert_same_bits(on_cpu(got), wanted)


@of_a_dtype
def test_store_and_recompute_have_the_same_bits(dtype):
    case = to(make_inputs(70, 5, 33, 3, torch.float32), dtype=dtype)
    for options in OPTIONS:
        stored, recomputed = (run(scan, case, *options, memory) for memory in MEMORY)
        assert_same_bits(stored, recomputed)


@of_a_dtype
@of_a_strategy
def test_packed_sequences(memory, dtype):
    sizes = torch.tensor([5] * 16 + [3] * 17 + [1] * 600)  # more steps than one kernel's arguments
    case = to(make_inputs(1, 5, 33, 3, torch.float64), "cpu", dtype)
    rows = torch.randn(int(sizes.sum()), 33).to(dtype)
    case = case._replace(z=rows.requires_grad_())
    wanted = run(scan, case, memory=memory, batch_sizes=sizes)
    got = run(scan, to(case), memory=memory, batch_sizes=sizes)
    assert_near(on_cpu(got), wanted, TOLERANCES[dtype])


@of_a_strategy
def test_a_stream_that_is_not_the_default(memory):
    case = to(make_inputs(200, 8, 64, 3, torch.float32))
    wanted = run(scan, case, memory=memory)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)  # a kernel on another stream would overtake this
        late = Inputs(*(x.detach().clone().requires_grad_() for x in case))
        got = run(scan, late, memory=memory)
    torch.cuda.current_stream().wait_stream(stream)
    assert_same_bits(got, wanted)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is no second GPU")
@of_a_strategy
def test_a_second_device(memory):
    case = make_inputs(40, 3, 33, 3, torch.float32)
    wanted = run(scan, to(case, "cuda:0"), memory=memory)
    got = run(scan, to(case, "cuda:1"), memory=memory)  # while cuda:0 is the current one
    assert all(x.device.index == 1 for x in got)
    assert_same_bits(on_cpu(got), on_cpu(wanted))


@allocated_by_pytorch
@of_a_strategy
@pytest.mark.parametrize("packed", [False, True])
def test_graph_capture(memory, packed):
    case, sizes = to(make_inputs(40, 3, 33, 3, torch.float32)), None
    if packed:
        sizes = torch.full((40,), 3)
        case = case._replace(z=case.z.detach().flatten(0, 1).requires_grad_())
    gradients = tuple(x.detach() for x in upstream(scan(*case, batch_sizes=sizes)))

    def step():
        outputs = scan(*case, memory=memory, batch_sizes=sizes)
        return *outputs, *torch.autograd.grad(outputs, case, gradients)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()  # libraries are loaded before the capture
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        case.z.copy_(torch.randn_like(case.z))
    garbage = [torch.randn(1000) for _ in range(100)]  # what the host had is overwritten
    del garbage
    graph.replay()
    torch.cuda.synchronize()
    assert_same_bits(captured, step())


def test_no_synchronisation():
    case = to(make_inputs(40, 3, 33, 3, torch.float32))
    gradients = tuple(x.detach() for x in upstream(scan(*case)))
    torch.cuda.set_sync_debug_mode("error")
    try:
        torch.autograd.grad(scan(*case), case, gradients)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def rounded(size):
    """Return the bytes that the caching allocator takes for an allocation of this size."""
    return -(-size // 512) * 512


@allocated_by_pytorch
@of_a_strategy
@pytest.mark.parametrize("couplings", [1, 4, 6, 10])
def test_peak_memory_of_a_backward_pass(memory, couplings):
    """The six gradients; a lane's sums of weight gradients; and a group's of 32 sequences."""
    steps, batch, hidden = 512, 40, 256
    case = [x.detach().cuda() for x in make_inputs(steps, batch, hidden, couplings, torch.float32)]
    interval = {"store": 0, "recompute": 16}[memory]
    options = (None, "relu", "tanh", interval, True)
    out, h_n, c_n, saved = torch.ops.irevrnn.scan(*case, *options)
    grad = torch.ones_like(out)
    torch.cuda.empty_cache()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    gradients = torch.ops.irevrnn.scan_backward(grad, h_n, c_n, out, saved, *case[1:], *options)
    torch.cuda.synchronize()
    rows = 1 + 2 * couplings
    groups = -(-batch // 32)
    workspace = rows * hidden * (batch + groups)
    results = sum(rounded(x.numel() * 4) for x in case)
    assert torch.cuda.max_memory_allocated() - before == results + rounded(4 * workspace)
    del gradients


@pytest.mark.parametrize("memory", [*MEMORY, "checkpoint"])
def test_a_layer_moved_to_the_gpu_gives_the_same(memory):
    model = IRevRNN(5, 33, 2, memory=memory)
    x = torch.randn(3, 40, 5)
    wanted = model(x)[0].detach()
    torch.testing.assert_close(model.cuda()(x.cuda())[0].cpu(), wanted, rtol=1e-4, atol=1e-4)
