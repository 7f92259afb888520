"""The just-in-time build, on sources so small that they compile in a moment."""

import ctypes
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from irevrnn.kernels.jit import build, compiler
from irevrnn.kernels.jit.compiler import BuildError, find_compiler

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="needs a C++ compiler"
)
BUILD_AND_PRINT = """
import pathlib, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
from irevrnn.kernels.jit import build
build.SOURCES = pathlib.Path(sys.argv[1])
print(build.build_extension("answer", sorted(pathlib.Path(sys.argv[2]).glob("*.cpp"))))
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IREVRNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def sources(tmp_path, cache, monkeypatch):
    """Two files and two headers, in folders whose names a careless command line trips over."""
    folder, shared = tmp_path / "the $ources: here", tmp_path / "sha red"
    folder.mkdir()
    shared.mkdir()
    monkeypatch.setattr(build, "SOURCES", shared)
    (shared / "shared.h").write_text("inline int half() { return 21; }\n")
    (folder / "own.h").write_text("inline int answer() { return 2 * half(); }\n")
    one = '#include "shared.h"\n#include "own.h"\nint one() { return answer(); }\n'
    (folder / "one.cpp").write_text(one)
    (folder / "two.cpp").write_text('int one();\nextern "C" int ask() { return one(); }\n')
    return folder


def build_from(folder):
    return build.build_extension("answer", sorted(folder.glob("*.cpp")))


def ask(library):
    return ctypes.CDLL(str(library)).ask()


def start_build(sources):
    """Build in another process."""
    command = [sys.executable, "-c", BUILD_AND_PRINT, str(build.SOURCES), str(sources)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def script(path, body):
    """A stand-in for a compiler."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_builds_once_and_then_takes_it_from_the_cache(cache, sources, capfd, monkeypatch):
    library = build_from(sources)
    assert ask(library) == 42 and library.is_relative_to(cache)
    # PyTorch may say something of its own, as of a CUDA toolkit without a GPU.
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("irevrnn:")]
    assert "building answer" in lines[0] and "[2/2]" in lines[2] and "linking" in lines[3]
    assert {path.name for path in library.parent.iterdir()} == {"answer.so", "lock"}
    monkeypatch.setattr(build, "FileLock", None)  # a filled cache may be read-only
    assert build_from(sources) == library and capfd.readouterr().err == ""


@pytest.mark.parametrize("change", [
    "shared.h", "own.h", "one.cpp", "flags", "PyTorch",
    '[ "$*" = --version ] && echo "g++ 99" && exit', 'set -- "$@" -D_OTHER',
])  # fmt: skip
def test_all_that_goes_in_makes_another_library(sources, tmp_path, monkeypatch, change):
    before = build_from(sources)
    assert any("native" in flag for flag in find_compiler().flags)
    file = next((f for f in (sources / change, build.SOURCES / change) if f.exists()), None)
    if file:
        file.write_text(file.read_text().replace("return", "return 1 +"))
    elif change == "PyTorch":
        monkeypatch.setattr(build, "TORCH", "0.0")
    elif change == "flags":
        processor = "x86-64-v2" if platform.machine() == "x86_64" else "armv8-a"
        monkeypatch.setenv("IREVRNN_CXXFLAGS", f"-DOWN -march={processor}")
        found = find_compiler()
        assert "-DOWN" in found.link_flags and not any("native" in flag for flag in found.flags)
    else:  # another version of the compiler, or another processor
        script(tmp_path / "other", f'{change}\nexec {find_compiler().command} "$@"')
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("CXX", "./other")
    after = build_from(sources)
    assert after != before
    assert ask(after) == {"shared.h": 44, "own.h": 43, "one.cpp": 43}.get(change, 42)


@pytest.mark.parametrize("content", ["no library of this machine", ""])
def test_a_library_that_does_not_load_is_built_again_unless_another_process_stands_still(
    cache, sources, content, monkeypatch
):
    monkeypatch.setattr(build, "digest", lambda *parts: "key")
    monkeypatch.setattr(build, "PATIENCE", 0.3)
    library = cache / "key" / "answer.so"
    library.parent.mkdir(parents=True)
    library.write_text(content)
    with (
        build.FileLock(library.with_name("lock")),
        pytest.raises(BuildError, match="(?s)lock.*IREV"),
    ):
        build_from(sources)
    assert build_from(sources) == library and ask(library) == 42


def test_the_cache_is_where_the_system_keeps_others(monkeypatch):
    monkeypatch.delenv("IREVRNN_CACHE", raising=False)
    for named, root in (("/caches", "/caches"), ("", os.path.expanduser("~/.cache"))):
        monkeypatch.setenv("XDG_CACHE_HOME", named)
        assert build.cache_folder() == Path(root, "irevrnn")


def test_processes_that_start_together_build_once(sources):
    processes = [start_build(sources) for _ in range(3)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert all(process.returncode == 0 for process in processes), outputs
    assert len({library for library, _ in outputs}) == 1
    assert sum("irevrnn: building" in messages for _, messages in outputs) == 1


def test_the_next_process_builds_what_a_killed_one_did_not(sources, tmp_path, monkeypatch):
    started = tmp_path / "started"
    body = f'case "$*" in *"/one.cpp "*) [ -e {started} ] || {{ touch {started}; sleep 3; }};; esac'
    compiler = f'exec {find_compiler().command} "$@"'
    monkeypatch.setenv("CXX", script(tmp_path / "slow", f"{body}\n{compiler}"))
    builder = start_build(sources)
    while not started.exists():
        time.sleep(0.02)
    waiting = start_build(sources)
    builder.send_signal(signal.SIGKILL)
    library, messages = waiting.communicate(timeout=60)
    assert waiting.returncode == 0 and ask(library.strip()) == 42, messages
    assert {path.name for path in Path(library).parent.iterdir()} == {"answer.so", "lock"}
    builder.communicate(timeout=60)


def test_a_failure_names_the_file(cache, sources):
    (sources / "three.cpp").write_text("int broken() { return undeclared_name; }\n")
    with pytest.raises(BuildError, match="(?s)fails on .*three.cpp.*undeclared_name.*CXX"):
        build_from(sources)
    assert not list(cache.glob("*/*.so"))


@pytest.mark.parametrize("jobs, together", [("1", 1), ("3", 3)])
def test_max_jobs_bounds_the_compilers_that_run_at_a_time(monkeypatch, tmp_path, jobs, together):
    """And a library that is preloaded into Python, such as a sanitizer, is not for them."""
    monkeypatch.setenv("MAX_JOBS", jobs)
    monkeypatch.setenv("LD_PRELOAD", "libasan.so")
    wait = 'touch $$.here; sleep 0.5; set -- *.here; echo "$#" $LD_PRELOAD; rm $$.here'
    outputs = compiler.run({str(number): ["sh", "-c", wait] for number in range(6)}, tmp_path)
    counts = [int(output.splitlines()[-1]) for output in outputs.values()]
    assert len(counts) == 6 and max(counts) == together


PROGRAM = """import torch, irevrnn
model = torch.nn.Sequential(irevrnn.IRevRNN(3, 4, memory='recompute'))
for _ in range(3):
    with torch.no_grad():
        model(torch.randn(2, 5, 3))
inputs = [torch.randn(*shape) for shape in ((5, 2, 3), (2, 3), (2, 3), (3,), (2, 3), (2, 3))]
assert torch.equal(irevrnn.scan(*inputs)[0], irevrnn.kernels.reference.scan(*inputs)[0])
"""


@pytest.mark.parametrize("variable, value, said", [
    ("CXX", "/nonexistent", "there is no C++ compiler /nonexistent"),
    ("CXX", "exit 1", "wrong fails on csrc/"), ("CXX", "exit 0", "cannot open shared object"),
    ("IREVRNN_CACHE", os.devnull, "Not a directory"),
])  # fmt: skip
def test_one_warning_points_at_the_caller_and_the_reference_runs(
    cache, tmp_path, variable, value, said
):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    if value.startswith("exit"):
        value = script(tmp_path / "wrong", value)
    done = subprocess.run(
        [sys.executable, "-W", "always", str(program)], env={**os.environ, variable: value},
        text=True, capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("RuntimeWarning: irevrnn runs its slow PyTorch reference") == 1
    assert f"{program}:5: RuntimeWarning" in done.stderr and said in done.stderr
    assert "2.4 times" in done.stderr and "0.8 times" in done.stderr
    assert not list(cache.glob("*/*.so"))


def test_import_is_quick_and_builds_nothing(cache):
    """Other work on the machine is none of the import's, so this is time of the processor."""
    code = (
        "import sys, torch; from time import process_time; before = process_time(); import irevrnn;"
        "print(process_time() - before, 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    seconds, compiler_loaded = done.stdout.split()
    assert float(seconds) < 2 and compiler_loaded == "False"
    assert not cache.exists() and done.stderr == ""


def test_a_missing_compiler_is_told(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BuildError, match=r"apt install g\+\+"):
        find_compiler()


def test_command_line_prints_the_path():
    for compiler_named, status in ((os.environ.get("CXX", ""), 0), ("/nonexistent", 1)):
        done = subprocess.run(
            [sys.executable, "-m", "irevrnn.kernels"], capture_output=True, text=True,
            env={**os.environ, "CXX": compiler_named},
        )  # fmt: skip
        assert done.returncode == status and "Traceback" not in done.stderr
        assert done.stdout.endswith("/irevrnn_ops.so\n") or "/nonexistent" in done.stderr
