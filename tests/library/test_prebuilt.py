"""Libraries that came compiled with the package: which one is taken, and what happens without."""

import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from irevrnn.kernels.jit import build, operators
from irevrnn.kernels.jit.compiler import BuildError

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or not any(map(shutil.which, ("g++", "c++", "clang++"))),
    reason="needs a C++ compiler for x86-64",
)


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    """Libraries of tiny sources for AVX-512 and AVX2, on a processor that has both."""
    monkeypatch.setenv("IREVRNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("IREVRNN_CXXFLAGS", raising=False)
    monkeypatch.setattr(build, "SOURCES", tmp_path / "csrc")
    build.SOURCES.mkdir()
    code = 'extern "C" int ask() {\n#ifdef __AVX512F__\nreturn 512;\n#endif\nreturn 2; }\n'
    (build.SOURCES / "one.cpp").write_text(code)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(operators, "FOLDER", tmp_path / "prebuilt")
    return operators.prebuild(operators.FOLDER)


@pytest.mark.parametrize("target, name, value, expected", [
    (torch.backends.cpu, "get_cpu_capability", lambda: "AVX512", 512),
    (torch.backends.cpu, "get_cpu_capability", lambda: "AVX2", 2),
    (torch, "__version__", torch.__version__.partition("+")[0] + "+cu999", 512),
    (torch, "__version__", "2.7.0", None),
    (torch.version, "git_version", "another", None), (platform, "machine", lambda: "arm", None),
    (torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT", None),
])  # fmt: skip
def test_the_best_that_fits_is_taken(compiled, monkeypatch, capfd, target, name, value, expected):
    capfd.readouterr()
    monkeypatch.setattr(target, name, value)
    library, said = operators.build_operators(), capfd.readouterr().err
    if expected:
        assert library == compiled[{512: 0, 2: 1}[expected]] and "irevrnn:" not in said
        assert build.ctypes.CDLL(str(library)).ask() == expected
    else:
        assert library.is_relative_to(build.cache_folder())
        assert re.search(r"once \(compiled ahead are torch.*-AVX2-.*; wanted is torch", said)


def test_no_path_of_this_machine_and_no_own_flags_go_in(compiled, monkeypatch):
    for library in compiled:
        assert str(Path(torch.__file__).parent).encode() not in library.read_bytes()
    monkeypatch.setenv("IREVRNN_CXXFLAGS", "-g")
    assert operators.build_operators() not in compiled
    with pytest.raises(BuildError, match="without IREVRNN_CXXFLAGS"):
        operators.prebuild(operators.FOLDER)


def test_where_none_fits_and_there_is_no_compiler_both_are_told(compiled, monkeypatch):
    (build.SOURCES / "one.h").touch()  # other sources
    monkeypatch.setenv("CXX", "/nonexistent")
    with pytest.warns(RuntimeWarning, match="reference.*no C.. compiler /nonexist.*compiled ahead"):
        assert operators.load() is False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
def test_a_wheel_with_kernels_needs_no_compiler(kernels, tmp_path, monkeypatch):
    pytest.importorskip("hatchling")
    best = torch.backends.cpu.get_cpu_capability()
    if best not in operators._INSTRUCTION_SETS["x86_64"]:
        pytest.skip("nothing is compiled ahead for this processor")
    monkeypatch.setenv("IREVRNN_PREBUILT", str(tmp_path / "kernels"))
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(ROOT)]
    command = [sys.executable, "-m", "pip", "wheel", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0 and "which holds no kernels" in done.stdout + done.stderr
    library = tmp_path / "kernels" / operators._place(best)
    library.parent.mkdir(parents=True)
    shutil.copy(operators.build_operators(), library)
    subprocess.run(command, capture_output=True, check=True)
    [wheel] = tmp_path.glob("*.whl")
    assert re.fullmatch(r"irevrnn-.*-py3-none-linux_\w+\.whl", wheel.name)
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")

    code = "import torch, irevrnn; irevrnn.IRevRNN(3, 4)(torch.randn(2, 5, 3))"
    bare = {"CXX": "/nonexistent", "IREVRNN_CACHE": os.devnull, "IREVRNN_BACKEND": "cpp"}
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print(open('/proc/self/maps').read())"],
        cwd=tmp_path, env={**os.environ, **bare, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True, text=True,
    )  # fmt: skip
    assert str(tmp_path / "site" / "irevrnn" / "prebuilt" / library.parent.name) in done.stdout
    assert done.stderr == ""
