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
import torch

from experiments.bench import cuda_resources as resources
from experiments.bench.cuda_resources import ARCHS, kernels_of
from irevrnn.kernels.jit import cuda
from irevrnn.kernels.jit.compiler import BuildError

FULL = 80
EVERYTHING = os.environ.get("IREVRNN_CUDA_TESTS") == "all"
FILES = sorted(cuda.FOLDERS[0].glob("*.cu"))
try:
    VERSION, MISSING = cuda.find_nvcc()[1], ""
except BuildError as error:
    VERSION, MISSING = "", str(error)
needs_nvcc = pytest.mark.skipif(bool(MISSING), reason=f"nothing is compiled: {MISSING}")


def stands_for_others(file):
    """The other number types go through the same templates."""
    return not file.stem.endswith("double")


@needs_nvcc
@pytest.mark.slow
def test_kernels_compile_without_warnings_and_float32_spills_nothing_up_to_four_couplings():
    archs = ARCHS if EVERYTHING else (FULL, max(ARCHS))
    jobs = [(arch, file) for arch in archs for file in FILES]
    chosen = [job for job in jobs if EVERYTHING or job[0] == FULL or stands_for_others(job[1])]
    kernels = kernels_of(chosen, cuda.FOLDERS)
    assert {(kernel.arch, kernel.file) for kernel in kernels} == {(a, f.name) for a, f in chosen}
    for name in resources.PASSES:
        row = resources.summary(name, kernels)
        assert row["registers"].keys() >= {"1", "2", "3", "4"}
        rare = 128 if name.endswith("reversible") else 0  # calls that change scales
        assert row["spilled"] == 0 and row["stack"] <= rare, name


@needs_nvcc
def test_the_report_shows_a_stack_frame_and_shared_memory_and_a_warning_is_an_error(tmp_path):
    file = tmp_path / "one.cu"
    file.write_text("""__global__ void one(float* out, int n) {
        __shared__ float x[64]; x[n] = 1; __syncthreads(); out[0] = x[1];
        float y[64]; for (int i = 0; i < n; ++i) y[i] = out[i]; out[1] = y[n];
    }""")
    (kernel,) = kernels_of([(FULL, file)], (tmp_path, tmp_path))
    assert (kernel.name, kernel.arch, kernel.stack, kernel.shared) == ("one", FULL, 256, 256)
    file.write_text("__global__ void one(float* out) { int unused; out[0] = 1; }\n")
    with pytest.raises(BuildError, match=r"one.cu for .*8.0:\n.*unused.*never referenced"):
        kernels_of([(FULL, file)], (tmp_path, tmp_path))


REPORT = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '{}' for 'sm_90'
ptxas info    : Function properties for {}
    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 512 bytes smem, 360 bytes cmem[0]
"""


def test_reads_the_report():
    symbol = "_ZN7irevrnn6kernelINS_4WorkILNS_10ActivationE1ELi3EfEEEEvT_"
    for written, name in ((symbol, "kernel<Work<(Activation)1, 3, float> >"), ("plain", "plain")):
        (kernel,) = resources.read_report("one.cu", REPORT.format(written, written))
        assert kernel == resources.Kernel("one.cu", name, 90, 32, 12, 16, 512)
    with pytest.raises(BuildError, match="not understood"):
        resources.read_report("one.cu", REPORT.replace("Used 32 registers", "32 registers"))


def test_the_summary_names_the_most_that_any_float32_kernel_of_a_pass_takes():
    name = "kernel<ForwardWork<(Activation)1, {}> >"
    kernels = [
        resources.Kernel("scan.cu", name.format(work), arch, n, n, 0, 0)
        for work, arch, n in (
            ("2, false, float", 80, 32), ("1, false, float", 80, 33),
            ("1, false, float", 90, 50), ("-1, false, float", 80, 99),
            ("1, true, float", 80, 99), ("1, false, double", 80, 99),
        )
    ]  # fmt: skip
    row = resources.summary("forward recompute", kernels)
    assert row["registers"] == {"1": 50, "2": 32} and row["spilled"] == 50 and row["kernels"] == 2


LOAD = """
import sys, torch
for library in sys.argv[1:]:
    torch.ops.load_library(library)
for name in ("scan", "scan_backward", "fixed_scan", "fixed_unscan", "state_hash"):
    assert torch._C._dispatch_has_kernel_for_dispatch_key("irevrnn::" + name, "CUDA"), name
"""


@pytest.mark.slow
@pytest.mark.skipif(
    f"release {str(torch.version.cuda).partition('.')[0]}." not in VERSION,
    reason=MISSING or "PyTorch is for another CUDA than nvcc",
)
def test_the_extension_is_built_without_a_gpu_and_registers_its_operators():
    command = [sys.executable, "-m", "irevrnn.kernels", "--cuda"]
    environment = {**os.environ, "IREVRNN_CUDA_ARCHS": f"{FULL / 10}", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    libraries = done.stdout.split()
    assert [Path(library).name for library in libraries] == ["irevrnn_ops.so", cuda.LIBRARY]
    subprocess.run([sys.executable, "-c", LOAD, *libraries], check=True)
