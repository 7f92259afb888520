"""The CUDA kernels as nvcc compiles them, without a GPU: no warnings, no spills; all registers.

What the compiler says of a file is kept in the cache until the file, a header or the compiler
changes. ``make cuda`` compiles every file for every architecture; here one architecture is compiled
in full, and for the others what stands for the rest.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from irevrnn.csrc.compiler import BuildError
from irevrnn.cuda import build, resources
from irevrnn.cuda.nvcc import check_pytorch, find_host_compiler, find_toolkit
from irevrnn.cuda.resources import ARCHS, kernels_of

FULL = 80
FILES = sorted(build.FOLDERS[0].glob("*.cu"))


def obstacle():
    """Why nothing can be compiled here; empty if it can."""
    try:
        find_host_compiler(find_toolkit())
    except BuildError as error:
        return str(error)
    return ""


OBSTACLE = obstacle()
needs_nvcc = pytest.mark.skipif(bool(OBSTACLE), reason=f"nothing is compiled: {OBSTACLE}")


def obstacle_to_linking():
    try:
        check_pytorch(find_toolkit())
    except BuildError as error:
        return str(error)
    return ""


@needs_nvcc
@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
def test_every_kernel_compiles_without_warnings(arch):
    if arch not in find_toolkit().archs:
        pytest.skip(f"this nvcc does not know compute capability {arch / 10}")
    everything = arch == FULL or os.environ.get("IREVRNN_CUDA_TESTS") == "all"
    files = FILES if everything else FILES[:1]
    assert len(kernels_of(arch, files, build.FOLDERS)) > len(files)


@needs_nvcc
@pytest.mark.slow
def test_float32_spills_nothing_up_to_four_couplings():
    kernels = kernels_of(FULL, FILES, build.FOLDERS)
    checked = [kernel for kernel in kernels if kernel.in_float32 and kernel.couplings in range(5)]
    assert len(checked) > 10
    assert [kernel for kernel in checked if kernel.spilled or kernel.stack] == []


@pytest.fixture
def folders(tmp_path):
    own, shared = tmp_path / "cuda", tmp_path / "shared"
    own.mkdir()
    shared.mkdir()
    return own, shared


@needs_nvcc
@pytest.mark.parametrize(
    "body, expected",
    [
        ("out[0] = 1.0f;", {"stack": 0, "shared": 0}),
        ("float x[64]; for (int i = 0; i < n; ++i) x[i] = out[i]; out[0] = x[n];", {"stack": 256}),
        ("__shared__ float x[64]; x[n] = 1; __syncthreads(); out[0] = x[1];", {"shared": 256}),
    ],
)
def test_the_report_shows_a_stack_frame_and_shared_memory(folders, body, expected):
    file = folders[0] / "one.cu"
    file.write_text(f"__global__ void one(float* out, int n) {{ {body} }}\n")
    (kernel,) = kernels_of(FULL, [file], folders)
    assert kernel.name == "one" and kernel.arch == FULL and kernel.registers > 0
    assert {name: getattr(kernel, name) for name in expected} == expected


@needs_nvcc
def test_a_warning_is_an_error(folders):
    file = folders[0] / "one.cu"
    file.write_text("__global__ void one(float* out) { int unused; out[0] = 1; }\n")
    with pytest.raises(
        BuildError, match=r"does not take one.cu .*8.0:\n.*unused.*never referenced"
    ):
        kernels_of(FULL, [file], folders)


def test_names_are_short():
    symbol = "_ZN7irevrnn6kernelINS_4WorkILNS_10ActivationE1ELi3EfEEEEvT_"
    assert resources.demangled([symbol]) == ["kernel<Work<(Activation)1, 3, float> >"]
    assert resources.demangled(["no_cpp"]) == ["no_cpp"]


ENTRY = """ptxas info    : Compiling entry function '_Z3onePf' for 'sm_90'
ptxas info    : Function properties for _Z3onePf
    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 512 bytes smem, 360 bytes cmem[0]
"""


def test_reads_the_report():
    (kernel,) = resources.read_report("ptxas info    : 0 bytes gmem\n" + ENTRY)
    assert kernel == resources.Kernel("one", 90, 32, 12, 16, 512)


def test_a_report_in_other_words_is_an_error():
    with pytest.raises(BuildError, match="not understood"):
        resources.read_report(ENTRY.replace("Used 32 registers", "32 registers"))


@pytest.mark.parametrize(
    "name, couplings, in_float32",
    [
        ("kernel<ForwardWork<(Activation)1, 3, false, float, float> >", 3, True),
        ("kernel<ForwardWork<(Activation)1, (int)3, (bool)0, float, __half>>", 3, False),
        ("kernel<InverseWork<-1, ChosenActivation, double> >", -1, False),
        ("kernel<SumWork<float>>", None, True),
    ],
)
def test_reads_what_a_kernel_is_for(name, couplings, in_float32):
    kernel = resources.Kernel(name, 80, 32, 0, 0, 0)
    assert kernel.couplings == couplings and kernel.in_float32 is in_float32


OPERATORS = ("scan", "scan_backward", "fixed_scan", "fixed_unscan")
BUILD_AND_LOAD = """
import sys, torch
for library in sys.argv[1:]:
    torch.ops.load_library(library)
for name in {names}:
    assert torch._C._dispatch_has_kernel_for_dispatch_key("irevrnn::" + name, "CUDA"), name
"""


@needs_nvcc
@pytest.mark.slow
@pytest.mark.skipif(bool(OBSTACLE or obstacle_to_linking()), reason=obstacle_to_linking())
def test_the_extension_is_built_without_a_gpu_and_registers_its_operators():
    command = [sys.executable, "-m", "irevrnn.csrc.build", "--cuda"]
    environment = {**os.environ, "IREVRNN_CUDA_ARCHS": f"{FULL / 10}", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    libraries = done.stdout.split()
    assert [Path(library).name for library in libraries] == ["irevrnn_ops.so", build.LIBRARY]
    code = BUILD_AND_LOAD.format(names=OPERATORS)
    loaded = subprocess.run(
        [sys.executable, "-c", code, *libraries], capture_output=True, text=True
    )
    assert loaded.returncode == 0, loaded.stderr
