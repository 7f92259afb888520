"""The build of the CUDA operators without a GPU: with stand-ins for nvcc and for the GPU."""

import ctypes
import re
import shutil
import sys

import pytest

from irevrnn.kernels.jit import cuda
from irevrnn.kernels.jit.compiler import BuildError

pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")

# It answers as nvcc does, and compiles and links by g++ what is C++ anyway.
NVCC = """#!{python} -S
import subprocess, sys
words = sys.argv[1:]
if words == ["--version"]:
    print("Cuda compilation tools, release {version}, V{version}.88")
    sys.exit()
with open("{root}/calls", "a") as calls:
    print(*words, file=calls)
mode, kind = ("-c", ["-fPIC", "-x", "c++"]) if "-c" in words else ("-shared", [])
own = [word for word in words if word.startswith("-I")]
sys.exit(subprocess.call(["g++", *kind, *own, *words[words.index(mode) : words.index("-o") + 2]]))
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with CUDA 13.0, a PyTorch for 13.1, a GPU of 8.6, an empty cache, tiny sources."""
    monkeypatch.setenv("CUDA_HOME", str(make_toolkit(tmp_path / "toolkit", "13.0")))
    for variable in ("IREVRNN_CUDA_ARCHS", "CUDAHOSTCXX", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("IREVRNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(cuda.torch.version, "cuda", "13.1")
    monkeypatch.setattr(cuda, "gpus", lambda: (86,))
    own, shared = tmp_path / "cu da", tmp_path / "shared"
    own.mkdir()
    shared.mkdir()
    monkeypatch.setattr(cuda, "FOLDERS", (own, shared))
    (shared / "answer.h").write_text("int answer();\n")
    (own / "one.cu").write_text('#include "answer.h"\nint answer() { return 42; }\n')
    code = '#include "answer.h"\nextern "C" int ask() { return answer(); }\n'
    (own / "ops.cpp").write_text(code)
    return tmp_path / "toolkit"


def make_toolkit(root, version):
    (root / "bin").mkdir(parents=True, exist_ok=True)
    nvcc = root / "bin" / "nvcc"
    nvcc.write_text(NVCC.format(python=sys.executable, root=root, version=version))
    nvcc.chmod(0o755)
    return root


def calls(machine):
    return (machine / "calls").read_text().splitlines() if (machine / "calls").exists() else []


def test_the_named_toolkit_comes_before_the_path(machine, tmp_path, monkeypatch):
    on_path = make_toolkit(tmp_path / "on_path", "12.6")
    monkeypatch.setenv("PATH", f"{on_path / 'bin'}:/usr/bin:/bin")
    assert "release 13.0" in cuda.find_nvcc()[1]
    monkeypatch.delenv("CUDA_HOME")
    words, identity = cuda.find_nvcc()
    assert words[0] == str(on_path / "bin" / "nvcc") and "release 12.6" in identity
    with pytest.raises(BuildError, match="(?s)for CUDA 13.1, .*CUDA_HOME.*release 12.6"):
        cuda.build()
    monkeypatch.setattr(cuda.torch.version, "cuda", None)
    with pytest.raises(BuildError, match="for CUDA None"):
        cuda.build()
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(BuildError, match=f"nvcc is missing from {tmp_path}.*conda install"):
        cuda.build()


def test_the_host_compiler_and_how_numbers_round(machine, tmp_path, monkeypatch):
    (tmp_path / "host").symlink_to(shutil.which("g++"))
    monkeypatch.setenv("CUDAHOSTCXX", str(tmp_path / "host"))
    monkeypatch.setenv("CXX", "/nonexistent")
    monkeypatch.setenv("IREVRNN_CXXFLAGS", "-DOWN")
    words, _ = cuda.find_nvcc()
    assert words[1:3] == ["-ccbin", str(tmp_path / "host")]
    assert {*cuda.ROUNDING, "-Xcompiler=-ffp-contract=off", "-Xcompiler=-DOWN"} <= set(words)
    assert not any("fast" in word or "native" in word for word in words)


def test_builds_for_the_gpu_that_is_there_and_then_takes_it_from_the_cache(machine, capfd):
    library = cuda.build()
    assert ctypes.CDLL(str(library)).ask() == 42 and library.parent.name == "sm86"
    *compilations, link = calls(machine)
    assert len(compilations) == 2 and "-cudart=shared" in link
    assert all("arch=compute_86,code=[sm_86,compute_86]" in call for call in compilations)
    assert "building irevrnn_cuda.so, once for architectures (86,)" in capfd.readouterr().err
    assert cuda.build() == library and len(calls(machine)) == 3


@pytest.mark.parametrize("change", ["flags", "one.cu", "answer.h"])
def test_all_that_goes_in_makes_another_library(machine, monkeypatch, change):
    before = cuda.build()
    if change == "flags":
        monkeypatch.setenv("IREVRNN_CXXFLAGS", "-DOWN")
    else:
        with open(next(f / change for f in cuda.FOLDERS if (f / change).exists()), "a") as file:
            file.write("// changed\n")
    after = cuda.build()
    assert after != before and before.exists() and after.exists()


def test_one_built_ahead_is_found_where_there_is_no_nvcc(machine, monkeypatch):
    monkeypatch.setattr(cuda, "gpus", lambda: ())  # a login node
    assert cuda.build().parent.name == "sm80-sm90"
    monkeypatch.setenv("IREVRNN_CUDA_ARCHS", "9.0;8.0")
    monkeypatch.setenv("CUDA_HOME", "/nonexistent")  # and a node with a GPU
    for gpu in ((86,), (90,), (120,), (80, 90)):
        monkeypatch.setattr(cuda, "gpus", lambda gpu=gpu: gpu)
        assert cuda.load.__wrapped__() == ""
    monkeypatch.delenv("IREVRNN_CUDA_ARCHS")
    assert cuda.load.__wrapped__() == ""  # for the GPUs that are there: the same two
    monkeypatch.setattr(cuda, "gpus", lambda: (75,))
    assert "nvcc is missing from /nonexistent" in cuda.load.__wrapped__()


@pytest.mark.parametrize("named, gpus, message", [
    ("9.0", (86,), r"names \(90,\).*are \(86,\)"), ("sm_86", (86,), "'8.0;9.0'; got 'sm_86'"),
    ("", (), "PyTorch finds no GPU"),
])  # fmt: skip
def test_nothing_is_built_that_does_not_serve_the_gpu(machine, monkeypatch, named, gpus, message):
    monkeypatch.setenv("IREVRNN_CUDA_ARCHS", named)
    monkeypatch.setattr(cuda, "gpus", lambda: gpus)
    assert re.search(message, cuda.load.__wrapped__()) and calls(machine) == []
