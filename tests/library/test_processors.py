"""The vectorised kernels give the same bits on every processor, whatever the width of its vectors.

A program of the kernels alone (``processors/vector_bits.cpp``) is built for each of those that can
run here, the others than x86-64 under emulation where a cross compiler and QEMU are found (Debian:
g++-aarch64-linux-gnu, qemu-user).
"""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from irevrnn.kernels.jit import build
from irevrnn.kernels.jit.compiler import BuildError, find_compiler

PROGRAM = Path(__file__).parent / "processors" / "vector_bits.cpp"

pytestmark = pytest.mark.slow


def bits(folder, *options, command=None, emulator=(), sources=build.SOURCES):
    """The lines that the program prints, compiled by these options."""
    try:
        compiler = find_compiler(native=False)
    except BuildError as error:
        pytest.skip(str(error))
    includes = [f"-I{PROGRAM.parent / 'without_torch'}", f"-I{sources}", *build.TORCH_INCLUDES]
    words = [command or compiler.command, *compiler.flags, *options, *includes]
    parts = [sources / name for name in ("gate_vector.cpp", "products.cpp")]
    subprocess.run([*words, PROGRAM, *parts, "-o", folder / "program"], check=True)
    run = [*emulator, folder / "program"]
    return subprocess.run(run, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """Results with vectors of 128 bits and none of the newer instructions."""
    if platform.machine() != "x86_64":
        pytest.skip("this is no x86-64")
    printed = bits(tmp_path_factory.mktemp("narrow"), "-march=x86-64")
    assert len(printed) == 308
    return printed


@pytest.mark.parametrize("level, sets", [("v3", ("AVX2", "AVX512")), ("v4", ("AVX512",))])
def test_wider_vectors_give_the_same_bits(narrow, level, sets, tmp_path):
    if torch.backends.cpu.get_cpu_capability() not in sets:
        pytest.skip(f"this processor cannot run code for x86-64-{level}")
    assert bits(tmp_path, f"-march=x86-64-{level}") == narrow


def test_arm_gives_the_same_bits(narrow, tmp_path):
    cross, emulator = "aarch64-linux-gnu-g++", "qemu-aarch64"
    if not shutil.which(cross) or not shutil.which(emulator):
        pytest.skip(f"there is no {cross} or no {emulator}")
    assert bits(tmp_path, "-static", command=cross, emulator=[emulator]) == narrow


@pytest.mark.parametrize(("file", "before", "after", "most_changed"), [
    ("activations.h", "0.346573591f", "0.346573621f", 300),
    ("products.cpp", "fma(of_a, of_b[v], sums[r][v])", "of_a * of_b[v] + sums[r][v]", 4),
], ids=["constant", "product"])  # fmt: skip
def test_one_operation_rounded_otherwise_gives_other_bits(
    narrow, tmp_path, file, before, after, most_changed
):
    """The control, with another constant of the hyperbolic tangent, or sums rounded twice."""
    sources = shutil.copytree(build.SOURCES, tmp_path / "csrc")
    text = (sources / file).read_text()
    assert text.count(before) == 1
    (sources / file).write_text(text.replace(before, after))
    printed = bits(tmp_path, "-march=x86-64", sources=sources)
    changed = sum(here != there for here, there in zip(printed, narrow, strict=True))
    assert most_changed / 3 < changed <= most_changed
