"""The vectorised kernels give the same bits on every processor, whatever the width of its vectors.

A program of the kernels alone (``processors/vector_bits.cpp``) is built for each of those that can
run here, the others than x86-64 under emulation where a cross compiler and QEMU are found (Debian:
g++-aarch64-linux-gnu, qemu-user).
"""

import functools
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from irevrnn.jit import build
from irevrnn.jit.compiler import BuildError, find_compiler

PROGRAM = Path(__file__).parent / "processors" / "vector_bits.cpp"
#: What the levels of x86-64 have, as Linux names it.
ABILITIES = {
    "x86-64": {"sse2"},
    "x86-64-v3": {"avx2", "bmi2", "f16c", "fma"},
    "x86-64-v4": {"avx2", "bmi2", "fma", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
}
#: A constant of the hyperbolic tangent, as it is written in activations.h.
LN_2_HALVED = "0.346573591f"

pytestmark = pytest.mark.slow


@functools.cache
def abilities():
    """Those of the processor; none where they cannot be told."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return {name for line in lines if line.startswith("flags") for name in line.split()}


def skip_unless_here(level):
    if platform.machine() != "x86_64" or not ABILITIES[level] <= abilities():
        pytest.skip(f"this processor cannot run code for {level}")


def compile_for(folder, *options, command=None, sources=build.SOURCES):
    try:
        compiler = find_compiler(native=False)
    except BuildError as error:
        pytest.skip(str(error))
    includes = [PROGRAM.parent / "without_torch", sources]
    program = folder / "program"
    subprocess.run(
        [
            *(command or compiler.command), *compiler.flags, *options,
            *(f"-I{path}" for path in includes), *build.TORCH_INCLUDES, PROGRAM, "-o", program,
        ],
        check=True,
    )  # fmt: skip
    return program


def output_of(*command):
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """Results with vectors of 128 bits and none of the newer instructions."""
    skip_unless_here("x86-64")
    printed = output_of(compile_for(tmp_path_factory.mktemp("narrow"), "-march=x86-64"))
    assert len(printed.splitlines()) == 300
    return printed


@pytest.mark.parametrize("level", ["x86-64-v3", "x86-64-v4"])
def test_wider_vectors_give_the_same_bits(narrow, level, tmp_path):
    skip_unless_here(level)
    assert output_of(compile_for(tmp_path, f"-march={level}")) == narrow


def test_arm_gives_the_same_bits(narrow, tmp_path):
    cross, emulator = "aarch64-linux-gnu-g++", "qemu-aarch64"
    for tool in (cross, emulator):
        if not shutil.which(tool):
            pytest.skip(f"there is no {tool}")
    program = compile_for(tmp_path, "-static", command=(cross,))
    assert output_of(emulator, program) == narrow


def test_one_constant_rounded_otherwise_gives_other_bits(narrow, tmp_path):
    """The control."""
    skip_unless_here("x86-64-v3")
    sources = shutil.copytree(build.SOURCES, tmp_path / "csrc")
    header = sources / "activations.h"
    text = header.read_text()
    assert text.count(LN_2_HALVED) == 1
    header.write_text(text.replace(LN_2_HALVED, "0.346573621f"))
    printed = output_of(compile_for(tmp_path, "-march=x86-64-v3", sources=sources))
    pairs = zip(printed.splitlines(), narrow.splitlines(), strict=True)
    assert sum(here != there for here, there in pairs) > 100
