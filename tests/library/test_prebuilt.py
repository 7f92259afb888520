"""Libraries that came compiled with the package: which one is taken, and what happens without."""

import json
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

from irevrnn.jit import build, prebuilt
from irevrnn.jit.commands import BuildError
from irevrnn.jit.compiler import find_compiler

ROOT = Path(__file__).parents[2]
SOURCES = "0123456789abcdef"


@pytest.fixture(autouse=True)
def plain(monkeypatch, tmp_path):
    """A cache of the test's own, and no flags."""
    monkeypatch.setenv("IREVRNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("IREVRNN_CXXFLAGS", raising=False)


@pytest.fixture
def loaded(monkeypatch):
    """The libraries that are loaded, rather than loading them."""
    libraries = []
    monkeypatch.setattr(torch.ops, "load_library", libraries.append)
    return libraries


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Libraries for AVX-512 and AVX2, each of a few bytes, on a processor that has both."""
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    stand_in = tmp_path / "stand-in"
    stand_in.write_bytes(b"no library")
    for instructions in ("AVX2", "AVX512"):
        prebuilt.add(stand_in, tmp_path / "prebuilt", instructions, SOURCES)
    return tmp_path / "prebuilt"


def edit(folder, **entries):
    for path in folder.glob(f"*/{prebuilt.MANIFEST}"):
        path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_the_best_that_the_processor_runs_is_taken_and_loaded(folder, loaded, monkeypatch):
    for capability in ("AVX512", "AVX2"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda name=capability: name)
        library, found = prebuilt.find(SOURCES, folder)
        assert library.parent.name.endswith(f"-{capability}") and found == ""
        assert loaded.pop() == library and not loaded


def test_a_processor_without_any_of_them_is_told(folder, loaded, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    library, found = prebuilt.find(SOURCES, folder)
    assert (
        library is None
        and "for processors with AVX2, AVX512, which PyTorch does not use here" in found
    )
    assert not loaded


@pytest.mark.parametrize("machine, count", [("aarch64", 1), ("arm64", 1), ("riscv64", 0)])
def test_other_machines(folder, loaded, monkeypatch, machine, count):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "SVE256")
    assert len(prebuilt.usable_sets()) == count
    assert prebuilt.find(SOURCES, folder)[0] is None and not loaded
    if not count:
        with pytest.raises(BuildError, match="x86_64, aarch64, arm64, not for riscv64"):
            prebuilt.instruction_sets()


@pytest.mark.parametrize("entries, reason", [
    ({"torch": "2.7.0 (1234567)"}, r"for PyTorch 2.7.0 \(1234567\), and this is \d+\.\d+\.\d+"),
    ({"instructions": "AVX10"}, "for processors with AVX10, which PyTorch does not use here"),
    ({"sources": "other"}, "compiled from other sources"),
    ({"more": "than it has"}, "a manifest in .* is damaged"),
])  # fmt: skip
def test_what_does_not_fit_is_passed_over_and_told(folder, loaded, entries, reason):
    edit(folder, **entries)
    library, found = prebuilt.find(SOURCES, folder)
    assert library is None and not loaded
    assert re.search(reason, found), found


def test_a_release_of_pytorch_is_one_whatever_it_was_built_for(folder, loaded, monkeypatch):
    release = torch.__version__.partition("+")[0]
    for version, fits in ((f"{release}+cpu", True), (f"{release}+cu999", True), ("2.7.0", False)):
        monkeypatch.setattr(torch, "__version__", version)
        assert bool(prebuilt.find(SOURCES, folder)[0]) == fits
    monkeypatch.setattr(torch, "__version__", release)
    monkeypatch.setattr(torch.version, "git_version", "another")
    assert prebuilt.find(SOURCES, folder)[0] is None


def test_own_flags_ask_for_a_build(folder, loaded, monkeypatch):
    monkeypatch.setenv("IREVRNN_CXXFLAGS", "-g")
    assert prebuilt.find(SOURCES, folder) == (None, "") and not loaded


def test_a_clone_has_none(tmp_path):
    assert prebuilt.find(SOURCES, tmp_path / "nowhere") == (None, "")
    assert not prebuilt.FOLDER.exists()


def test_a_damaged_library_and_one_that_does_not_load_are_passed_over(folder):
    assert "does not load" in prebuilt.find(SOURCES, folder)[1]
    for library in folder.glob(f"*/{prebuilt.LIBRARY}"):
        library.write_bytes(b"half")
    assert "is damaged" in prebuilt.find(SOURCES, folder)[1]
    assert len(list(folder.glob(f"*/{prebuilt.LIBRARY}"))) == 2  # the package's files stay
    for manifest in folder.glob(f"*/{prebuilt.MANIFEST}"):
        manifest.write_text("{")
    assert "manifest" in prebuilt.find(SOURCES, folder)[1]


# --- then it is built on first use --------------------------------------------------------------


@pytest.fixture
def misfit(folder, monkeypatch):
    """A package whose libraries are for another PyTorch."""
    edit(folder, torch="2.7.0 (1234567)")
    find = prebuilt.find
    monkeypatch.setattr(prebuilt, "find", lambda sources: find(sources, folder))


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Kernels that compile in a moment."""
    monkeypatch.setattr(build, "SOURCES", tmp_path / "csrc")
    build.SOURCES.mkdir()
    (build.SOURCES / "one.cpp").write_text('extern "C" int ask() { return 42; }\n')


needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="needs a C++ compiler"
)


@needs_compiler
def test_another_pytorch_builds_on_first_use_after_one_line_that_says_so(misfit, tiny, capfd):
    assert build.build_operators().is_file()
    said = capfd.readouterr().err.splitlines()
    assert sum("for PyTorch 2.7.0 (1234567), and this is" in line for line in said) == 1
    assert build.build_operators().is_file()
    assert "irevrnn:" not in capfd.readouterr().err


def test_another_pytorch_without_a_compiler_says_both(misfit, monkeypatch):
    monkeypatch.setenv("CXX", "/nonexistent")
    with pytest.warns(RuntimeWarning, match="for PyTorch 2.7.0 .*; CXX names '/nonexistent'"):
        assert build.load.__wrapped__() is False


# --- the wheel ----------------------------------------------------------------------------------


@needs_compiler
def test_a_library_is_compiled_for_each_instruction_set(tiny, tmp_path):
    try:
        wanted = prebuilt.instruction_sets()
    except BuildError as error:
        pytest.skip(str(error))
    libraries = build.prebuild(tmp_path / "prebuilt")
    assert len(set(libraries)) == len(wanted)
    for library, flags in zip(libraries, wanted.values(), strict=True):
        found = find_compiler(processor=flags).flags
        assert set(flags) <= set(found) and not any("native" in flag for flag in found)
        assert str(Path(torch.__file__).parent).encode() not in library.read_bytes()
    manifests = [json.loads(path.with_name("manifest.json").read_text()) for path in libraries]
    assert [manifest["instructions"] for manifest in manifests] == list(wanted)


@needs_compiler
def test_those_of_other_sources_are_deleted_and_own_flags_are_refused(
    folder, tiny, monkeypatch, capfd
):
    edit(folder, torch="2.7.0 (1234567)")
    [older, _] = sorted(path.parent for path in folder.glob(f"*/{prebuilt.MANIFEST}"))
    kept = older.rename(older.with_name("torch2.7.0-AVX2"))
    sources = build.digest(*build.files_of([build.SOURCES / "one.cpp"], build.SOURCES))
    manifest = kept / prebuilt.MANIFEST
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "sources": sources}))
    built = {path.parent for path in build.prebuild(folder)}
    assert {path.parent for path in folder.glob(f"*/{prebuilt.MANIFEST}")} == {kept, *built}
    assert "deleting" in capfd.readouterr().err

    monkeypatch.setenv("IREVRNN_CXXFLAGS", "-march=native")
    with pytest.raises(BuildError, match="unset IREVRNN_CXXFLAGS"):
        build.prebuild(folder)


STEP = """
import hashlib, torch
from torch import nn
from irevrnn import IRevBlock, IRevRNN, IRevStack

torch.set_num_threads(1)
blocks = [nn.Linear(3, 16), IRevBlock(16, 20, norm=None), IRevBlock(16, 20)]
for make in (lambda: IRevRNN(3, 20), lambda: IRevStack(blocks, memory="reversible")):
    torch.manual_seed(0)
    model = make()
    for parameter in model.parameters():
        nn.init.uniform_(parameter, -0.5, 0.5)
    output, _ = model(torch.randn(2, 50, 3))
    output.square().mean().backward()
    results = [output, *(parameter.grad for parameter in model.parameters())]
    print(hashlib.sha256(b"".join(x.detach().numpy().tobytes() for x in results)).hexdigest())
with open("/proc/self/maps") as maps:
    print({line.split()[-1] for line in maps if "irevrnn_ops" in line})
"""


def run_step(folder, **environment):
    """Train with the irevrnn in a folder; return the bits, the kernels' library and messages."""
    done = subprocess.run(
        [sys.executable, "-c", STEP], cwd=folder, env={**os.environ, **environment},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *bits, libraries = done.stdout.splitlines()
    return bits, libraries, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's /proc")
def test_a_wheel_with_kernels_needs_no_compiler(kernels, tmp_path, monkeypatch):
    pytest.importorskip("hatchling")
    if not prebuilt.usable_sets():
        pytest.skip("nothing is compiled ahead for this processor")
    monkeypatch.delenv("IREVRNN_CACHE")  # the library that the tests have built
    made_from = build.digest(*build.files_of(sorted(build.SOURCES.glob("*.cpp")), build.SOURCES))
    prebuilt.add(
        build.build_operators(), tmp_path / "kernels", prebuilt.usable_sets()[0], made_from
    )
    pip = [sys.executable, "-m", "pip", "--quiet"]
    here = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(ROOT)]
    environment = {**os.environ, "IREVRNN_PREBUILT": str(tmp_path / "kernels")}
    subprocess.run([*pip, "wheel", *here], env=environment, check=True)
    [wheel] = tmp_path.glob("*.whl")
    assert re.fullmatch(r"irevrnn-.*-py3-none-linux_\w+\.whl", wheel.name)
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")

    bare = {"CXX": "/nonexistent", "IREVRNN_CACHE": str(tmp_path / "cache")}
    bits, libraries, said = run_step(tmp_path / "site", **bare)
    assert str(tmp_path / "site" / "irevrnn" / "prebuilt") in libraries and said == ""
    built, others, _ = run_step(ROOT)
    assert bits == built and libraries != others
    assert not (tmp_path / "cache").exists()


def test_a_folder_without_kernels_makes_no_wheel(tmp_path):
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "--wheel-dir", str(tmp_path), str(ROOT)],
        env={**os.environ, "IREVRNN_PREBUILT": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0 and "which holds no kernels" in done.stdout + done.stderr
