"""The implementation that is chosen for a tensor, and the messages where it cannot be had."""

import warnings

import pytest
import torch

from irevrnn.kernels import backend, ops
from irevrnn.kernels.backend import choose_backend


@pytest.fixture(autouse=True)
def auto(monkeypatch):
    monkeypatch.delenv("IREVRNN_BACKEND", raising=False)
    backend._warn_once.cache_clear()


@pytest.fixture
def with_cuda(monkeypatch):
    """A machine whose CUDA kernels can be had: choosing asks for nothing else."""
    monkeypatch.setattr(ops, "load_operators", lambda: True)
    monkeypatch.setattr(ops, "load_cuda_operators", lambda: "")


@pytest.fixture
def without_cuda(monkeypatch):
    """A machine with a GPU, for which no kernels can be built."""
    monkeypatch.setattr(ops, "load_operators", lambda: True)
    monkeypatch.setattr(ops, "load_cuda_operators", lambda: "nvcc is missing")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("wanted", ["auto", "cuda"])
def test_a_gpu_gets_the_cuda_kernels(with_cuda, monkeypatch, wanted, dtype):
    monkeypatch.setenv("IREVRNN_BACKEND", wanted)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_backend("cuda", dtype) == "cuda"


def test_the_cpu_keeps_its_own_beside_a_gpu(with_cuda):
    assert choose_backend("cpu", torch.float32) == "vector"
    assert choose_backend("cpu", torch.float64) == "scalar"


def test_without_cuda_kernels_the_reference_runs_after_one_warning_that_says_why(without_cuda):
    with pytest.warns(RuntimeWarning, match="reference on cuda: .*nvcc is missing") as warned:
        for _ in range(3):
            assert choose_backend("cuda", torch.float32) == "python"
    assert len(warned) == 1
    assert choose_backend("cpu", torch.float32) == "vector"  # which they do not touch


@pytest.mark.parametrize("device, dtype", [("xpu", torch.float32), ("cuda", torch.bfloat16)])
def test_what_no_kernel_takes_runs_on_the_reference(with_cuda, device, dtype):
    with pytest.warns(RuntimeWarning, match=f"reference on {device}: there is no kernel for"):
        assert choose_backend(device, dtype) == "python"


@pytest.mark.parametrize("wanted, device, dtype, message", [
    ("cuda", "cpu", torch.float32, "IREVRNN_BACKEND=cuda has no kernel for torch.float32 on c"),
    ("cuda", "cuda", torch.float32, "on cuda .*nvcc is missing.*it takes float32 or"),
    ("cpp", "cuda", torch.float32, "IREVRNN_BACKEND=cpp has no kernel for .* on cuda"),
    ("cpp", "cpu", torch.float16, "there is no kernel for torch.float16.*it takes float32 or"),
])  # fmt: skip
def test_what_is_demanded_and_not_there_is_an_error(
    without_cuda, monkeypatch, wanted, device, dtype, message
):
    monkeypatch.setenv("IREVRNN_BACKEND", wanted)
    with pytest.raises(RuntimeError, match=message):
        choose_backend(device, dtype)


def test_python_asks_for_no_kernels(monkeypatch):
    monkeypatch.setattr(ops, "load_operators", lambda: pytest.fail("builds"))
    monkeypatch.setenv("IREVRNN_BACKEND", "python")
    assert choose_backend("cuda", torch.float32) == choose_backend("cpu", torch.float32) == "python"


def test_without_the_operators_there_are_no_cuda_kernels_to_register(monkeypatch):
    monkeypatch.setattr(ops, "load_operators", lambda: False)
    assert "C++ kernels" in ops.load_cuda_operators()
