"""The implementation that is chosen for a tensor, and the messages where it cannot be had."""

import warnings

import pytest
import torch

from irevrnn.kernels import backend, ops
from irevrnn.kernels.backend import choose_backend

HALF, SINGLE, DOUBLE = torch.float16, torch.float32, torch.float64


@pytest.fixture
def machine(monkeypatch):
    """Return a function that sets IREVRNN_BACKEND, and why there are no CUDA kernels, if so."""
    monkeypatch.setattr(ops, "load_operators", lambda: True)
    backend._warn_once.cache_clear()

    def make(wanted="auto", reason=""):
        monkeypatch.setenv("IREVRNN_BACKEND", wanted)
        monkeypatch.setattr(ops, "load_cuda_operators", lambda: reason)

    return make


@pytest.mark.parametrize(("wanted", "device", "dtype", "chosen"), [
    ("auto", "cuda", SINGLE, "cuda"), ("cuda", "cuda", DOUBLE, "cuda"),
    ("auto", "cpu", SINGLE, "vector"), ("auto", "cpu", DOUBLE, "scalar"),
    ("cpp", "cpu", SINGLE, "scalar"), ("python", "cuda", SINGLE, "python"),
])  # fmt: skip
def test_the_choice(machine, wanted, device, dtype, chosen):
    machine(wanted)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert choose_backend(device, dtype) == chosen


@pytest.mark.parametrize(("device", "dtype", "reason"), [
    ("cuda", SINGLE, "nvcc is missing"), ("xpu", SINGLE, "there is no kernel for it"),
    ("cuda", torch.bfloat16, "there is no kernel for torch.bfloat16"),
])  # fmt: skip
def test_the_reference_runs_after_one_warning_that_says_why(machine, device, dtype, reason):
    machine(reason="nvcc is missing")
    with pytest.warns(RuntimeWarning, match=f"reference on {device}: .*{reason}") as warned:
        for _ in range(3):
            assert choose_backend(device, dtype) == "python"
    assert len(warned) == 1
    assert choose_backend("cpu", SINGLE) == "vector"  # which keeps its own


@pytest.mark.parametrize("wanted, device, dtype, message", [
    ("cuda", "cpu", SINGLE, "IREVRNN_BACKEND=cuda has no kernel for torch.float32 on c"),
    ("cuda", "cuda", SINGLE, "on cuda .*nvcc is missing.*it takes float32 or"),
    ("cpp", "cuda", SINGLE, "IREVRNN_BACKEND=cpp has no kernel for .* on cuda"),
    ("cpp", "cpu", HALF, "there is no kernel for torch.float16.*it takes float32 or"),
])  # fmt: skip
def test_what_is_demanded_and_not_there_is_an_error(machine, wanted, device, dtype, message):
    machine(wanted, "nvcc is missing")
    with pytest.raises(RuntimeError, match=message):
        choose_backend(device, dtype)


def test_without_the_operators_there_are_no_cuda_kernels_to_register(monkeypatch):
    monkeypatch.setattr(ops, "load_operators", lambda: False)
    assert "C++ kernels" in ops.load_cuda_operators()
