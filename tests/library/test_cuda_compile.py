"""The CUDA kernels as nvcc compiles them, without a GPU: no warnings, no spills.

The compiler's report on a file is kept in the cache until the file, a header or the compiler
changes. ``make cuda`` compiles every file for every architecture; here one architecture is compiled
in full, and for the newest the files that stand for the rest.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.bench import cuda_resources as resources
from experiments.bench.cuda_resources import ARCHS, kernels_of
from irevrnn.jit import cuda as build
from irevrnn.jit.commands import BuildError
from irevrnn.jit.cuda import check_pytorch, find_host_compiler, find_toolkit

FULL = 80
EVERYTHING = os.environ.get("IREVRNN_CUDA_TESTS") == "all"
CHOSEN = ARCHS if EVERYTHING else (FULL, max(ARCHS))
FILES = sorted(build.FOLDERS[0].glob("*.cu"))


def unsupported_reason(check):
    """Return why the toolkit does not pass a check; empty if it does."""
    try:
        check(find_toolkit())
    except BuildError as error:
        return str(error)
    return ""


UNSUPPORTED = unsupported_reason(find_host_compiler)
TO_LINKING = UNSUPPORTED or unsupported_reason(check_pytorch)
needs_nvcc = pytest.mark.skipif(bool(UNSUPPORTED), reason=f"nothing is compiled: {UNSUPPORTED}")


@pytest.fixture(scope="module")
def kernels():
    """Compile side by side: minutes, unless the cache has the reports."""
    archs = [arch for arch in CHOSEN if arch in find_toolkit().archs]
    jobs = [(arch, file) for arch in archs for file in FILES]
    chosen = [job for job in jobs if EVERYTHING or job[0] == FULL or stands_for_others(job[1])]
    return kernels_of(chosen, build.FOLDERS)


def stands_for_others(file):
    """The other number types go through the same templates."""
    return not file.stem.endswith(("double", "float16", "bfloat16"))


@needs_nvcc
@pytest.mark.slow
@pytest.mark.parametrize("arch", CHOSEN)
def test_every_kernel_compiles_without_warnings(kernels, arch):
    if arch not in find_toolkit().archs:
        pytest.skip(f"this nvcc does not know compute capability {arch / 10}")
    compiled = {kernel.file for kernel in kernels if kernel.arch == arch}
    wanted = FILES if arch == FULL else filter(stands_for_others, FILES)
    assert compiled >= {file.name for file in wanted} and len(compiled) > 1


@needs_nvcc
@pytest.mark.slow
def test_float32_spills_nothing_up_to_four_couplings(kernels):
    for name in resources.PASSES:
        row = resources.summary(name, kernels)
        assert row["registers"].keys() >= {"1", "2", "3", "4"}
        rare = 128 if name.endswith("reversible") else 0  # calls that change scales
        assert row["spilled"] == 0 and row["stack"] <= rare, name


@pytest.fixture
def folders(tmp_path):
    own, shared = tmp_path / "cuda", tmp_path / "shared"
    own.mkdir()
    shared.mkdir()
    return own, shared


@needs_nvcc
@pytest.mark.parametrize("body, expected", [
    ("out[0] = 1.0f;", {"stack": 0, "shared": 0}),
    ("float x[64]; for (int i = 0; i < n; ++i) x[i] = out[i]; out[0] = x[n];", {"stack": 256}),
    ("__shared__ float x[64]; x[n] = 1; __syncthreads(); out[0] = x[1];", {"shared": 256}),
])  # fmt: skip
def test_the_report_shows_a_stack_frame_and_shared_memory(folders, body, expected):
    file = folders[0] / "one.cu"
    file.write_text(f"__global__ void one(float* out, int n) {{ {body} }}\n")
    (kernel,) = kernels_of([(FULL, file)], folders)
    assert kernel.name == "one" and kernel.arch == FULL and kernel.registers > 0
    assert {name: getattr(kernel, name) for name in expected} == expected


@needs_nvcc
def test_a_warning_is_an_error(folders):
    file = folders[0] / "one.cu"
    file.write_text("__global__ void one(float* out) { int unused; out[0] = 1; }\n")
    with pytest.raises(
        BuildError, match=r"does not take .*one.cu for .*8.0:\n.*unused.*never referenced"
    ):
        kernels_of([(FULL, file)], folders)


ENTRY = """ptxas info    : Compiling entry function '_Z3onePf' for 'sm_90'
ptxas info    : Function properties for _Z3onePf
    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 512 bytes smem, 360 bytes cmem[0]
"""


def test_reads_the_report():
    (kernel,) = resources.read_report("one.cu", "ptxas info    : 0 bytes gmem\n" + ENTRY)
    assert kernel == resources.Kernel("one.cu", "one", 90, 32, 12, 16, 512)


def test_names_are_short():
    symbol = "_ZN7irevrnn6kernelINS_4WorkILNS_10ActivationE1ELi3EfEEEEvT_"
    (kernel,) = resources.read_report("one.cu", ENTRY.replace("_Z3onePf", symbol))
    assert kernel.name == "kernel<Work<(Activation)1, 3, float> >"
    (kernel,) = resources.read_report("one.cu", ENTRY.replace("_Z3onePf", "no_cpp"))
    assert kernel.name == "no_cpp"


def test_a_report_in_other_words_is_an_error():
    with pytest.raises(BuildError, match="not understood"):
        resources.read_report("one.cu", ENTRY.replace("Used 32 registers", "32 registers"))


def kernel(name, arch=80, registers=32, spilled=0, file="scan.cu"):
    return resources.Kernel(file, name, arch, registers, spilled, stack=0, shared=0)


@pytest.mark.parametrize("name", [
    "kernel<ForwardWork<(Activation)1, 3, false, float, float16> >",
    "kernel<ForwardWork<(Activation)1, 3, false, float, bfloat16> >",
    "kernel<ForwardWork<(Activation)1, 3, false, double, double> >",
    "kernel<ForwardWork<(Activation)1, -1, false, float, float> >",
    "kernel<ForwardWork<(Activation)1, 3, true, float, float> >",
    "kernel<FixedForwardWork<3, ChosenActivation, float> >", "kernel<SumWork<float> >", "plain",
])  # fmt: skip
def test_the_summary_counts_the_float32_kernels_of_a_pass_that_are_compiled_for_an_r(name):
    mine = kernel("kernel<ForwardWork<(Activation)1, 3, false, float, float> >")
    row = resources.summary("forward recompute", [mine, kernel(name, registers=99, spilled=8)])
    assert row["kernels"] == 1 and row["registers"] == {"3": 32} and row["spilled"] == 0


def test_the_summary_names_the_most_that_any_takes():
    kernels = [
        kernel(f"kernel<{work}Work<(Activation)1, {r}, {str(keeps).lower()}, float, float> >")
        for work in ("Forward", "Backward") for keeps in (False, True) for r in (-1, 1, 2)
    ]  # fmt: skip
    kernels += [kernel(f"kernel<Fixed{work}Work<1, F, float> >") for work in ("Forward", "Inverse")]
    kernels += [
        kernel(kernels[1].name, registers=50, arch=90),
        kernel(kernels[1].name.replace(")1", ")2"), registers=40, spilled=8),
        kernel(kernels[0].name, registers=70),  # for any R
    ]
    rows = {name: resources.summary(name, kernels) for name in resources.PASSES}
    row = rows["forward recompute"]
    assert row["registers"] == {"1": 50, "2": 32} and row["spilled"] == 8 and row["kernels"] == 3


OPERATORS = ("scan", "scan_backward", "fixed_scan", "fixed_unscan", "state_hash")
BUILD_AND_LOAD = """
import sys, torch
for library in sys.argv[1:]:
    torch.ops.load_library(library)
for name in {names}:
    assert torch._C._dispatch_has_kernel_for_dispatch_key("irevrnn::" + name, "CUDA"), name
"""


@pytest.mark.slow
@pytest.mark.skipif(bool(TO_LINKING), reason=TO_LINKING)
def test_the_extension_is_built_without_a_gpu_and_registers_its_operators():
    command = [sys.executable, "-m", "irevrnn.jit", "--cuda"]
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
