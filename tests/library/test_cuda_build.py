"""The build of the CUDA operators without a GPU: with stand-ins for nvcc and for the GPU."""

import ctypes
import re
import shutil
import subprocess

import pytest

from irevrnn.jit import compiler
from irevrnn.jit import cuda as build
from irevrnn.jit.cache import put
from irevrnn.jit.commands import BuildError

needs_compiler = pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")

# It answers as nvcc 13.0 does, and compiles what is C++ anyway.
NVCC = """#!/bin/sh
case "$*" in
--version) echo "Cuda compilation tools, release {version}, V{version}.88";;
--list-gpu-arch) printf 'compute_75\\ncompute_80\\ncompute_86\\ncompute_90\\ncompute_100\\n';;
--dryrun*) echo '#$ INCLUDES="-I{root}/bin/../include"  ' >&2
           echo '#$ LIBRARIES=  "-L{root}/absent" "-L{root}/bin/../lib"' >&2;;
*" -E "*) {trial};;
*) echo "$@" >> {root}/calls
   while [ $# -gt 3 ]; do shift; done
   exec g++ -fPIC -x c++ -c "$@";;
esac
"""


@pytest.fixture
def toolkit(tmp_path):
    """A function that makes a stand-in for a CUDA toolkit and returns its root."""

    def make(name="toolkit", version="13.0", trial="exit 0"):
        root = tmp_path / name
        for folder in ("bin", "lib", "include"):
            (root / folder).mkdir(parents=True)
        script(root / "bin" / "nvcc", NVCC.format(root=root, version=version, trial=trial))
        for library in ("c10_cuda", "cudart"):  # empty: PyTorch may be a build for the CPU
            subprocess.run(["ar", "rcs", root / "lib" / f"lib{library}.a"], check=True)
        return root

    return make


def script(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def machine(toolkit, tmp_path, monkeypatch):
    """A machine with CUDA 13.0, a PyTorch for it, a GPU of 8.6 and an empty cache."""
    root = toolkit()
    monkeypatch.setenv("CUDA_HOME", str(root))
    for variable in ("IREVRNN_CUDA_ARCHS", "CUDA_PATH", "CUDAHOSTCXX"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("IREVRNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build.torch.version, "cuda", "13.0")
    monkeypatch.setattr(build, "gpus", lambda: (86,))
    return root


@pytest.fixture
def folders(tmp_path):
    """Sources of a library that answers a question, in the two folders that the real one has."""
    own, shared = tmp_path / "cu da", tmp_path / "shared"
    own.mkdir()
    shared.mkdir()
    (shared / "answer.h").write_text("inline int answer() { return 42; }\n")
    (own / "one.cu").write_text("int answer_from_the_device() { return 42; }\n")
    (own / "ops.cpp").write_text(
        '#include "answer.h"\nint answer_from_the_device();\n'
        'extern "C" int ask() { return answer() == answer_from_the_device() ? 42 : 0; }\n'
    )
    return own, shared


def compilations(root):
    calls = root / "calls"
    return calls.read_text().splitlines() if calls.exists() else []


# --- finding nvcc -------------------------------------------------------------------------------


def test_named_toolkits_come_before_the_path(toolkit, monkeypatch):
    roots = {name: toolkit(name) for name in ("home", "path_variable", "on_path", "usual")}
    monkeypatch.setenv("CUDA_HOME", str(roots["home"]))
    monkeypatch.setenv("CUDA_PATH", str(roots["path_variable"]))
    monkeypatch.setenv("PATH", f"{roots['on_path'] / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(build, "_USUAL", str(roots["usual"]))
    expected = list(roots.values())
    for root, lost in zip(expected, ("CUDA_HOME", "CUDA_PATH", "PATH", None), strict=True):
        assert build.find_toolkit().nvcc == str(root / "bin" / "nvcc")
        if lost == "PATH":
            monkeypatch.setenv("PATH", "/usr/bin:/bin")
        elif lost:
            monkeypatch.delenv(lost)


def test_the_toolkit_behind_a_wrapper_is_found(toolkit, tmp_path, monkeypatch):
    root = toolkit("elsewhere")
    wrapper = tmp_path / "bin" / "nvcc"
    wrapper.parent.mkdir()
    script(wrapper, f'#!/bin/sh\nexec {root}/bin/nvcc "$@"\n')
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    found = build.find_toolkit()
    assert found.includes == (f"-isystem{root}/include",)
    assert found.libraries == (f"-L{root}/lib",)  # and not the folder that is absent
    assert found.version == "13.0" and found.archs == (75, 80, 86, 90, 100)


def test_a_missing_nvcc_is_told_how_to_get(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(BuildError, match="nvcc is missing: .*/bin. .*or correct CUDA_HOME"):
        build.find_toolkit()
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(build, "_USUAL", str(tmp_path))
    with pytest.raises(BuildError, match="nvcc is missing: .*:.*/bin. .*conda install cuda-nvcc"):
        build.find_toolkit()


@pytest.mark.parametrize("body, message", [
    ("echo no compiler", "does not answer as nvcc does"),
    ("echo broken >&2; exit 1", "does not answer as nvcc does.*CUDA_HOME.*\nbroken"),
    ("exec sleep 60", "did not answer within 0.5 s. Name another compiler in CUDA_HOME"),
])  # fmt: skip
def test_a_wrong_nvcc_is_named(machine, monkeypatch, body, message):
    monkeypatch.setattr(compiler, "PATIENCE", 0.5)
    script(machine / "bin" / "nvcc", f"#!/bin/sh\n{body}\n")
    with pytest.raises(BuildError, match=message):
        build.find_toolkit()


@pytest.mark.parametrize("pytorch, message", [
    ("12.8", r"built for 12.8, which does not go with nvcc 13.0 \(.*\)"),
    (None, "this PyTorch is built for no CUDA"),
])  # fmt: skip
def test_pytorch_of_another_cuda_is_told_apart(machine, folders, monkeypatch, pytorch, message):
    monkeypatch.setattr(build.torch.version, "cuda", pytorch)
    with pytest.raises(BuildError, match=message):
        build.build(folders, (80,))


@needs_compiler
def test_pytorch_of_another_minor_version_will_do(machine, monkeypatch):
    monkeypatch.setattr(build.torch.version, "cuda", "13.1")
    build.check_pytorch(build.find_toolkit())


@needs_compiler
def test_a_host_compiler_that_is_too_new_is_named(toolkit, monkeypatch):
    error = "host_config.h:143:2: error: #error -- unsupported GNU version! gcc versions later than"
    root = toolkit(trial=f"echo '{error} 15 are not supported!' >&2; exit 1")
    monkeypatch.setenv("CUDA_HOME", str(root))
    with pytest.raises(BuildError, match=r"does not take .*\+\+.*CUDAHOSTCXX.*\n.*later than 15"):
        build.find_host_compiler(build.find_toolkit())


@needs_compiler
def test_the_host_compiler_is_handed_over_without_its_launcher(machine, monkeypatch):
    monkeypatch.setenv("CUDAHOSTCXX", "/usr/bin/env g++")  # any command of several words
    monkeypatch.setattr(build, "_LAUNCHERS", ("env",))
    monkeypatch.setenv("IREVRNN_CXXFLAGS", "-Wa,-W")
    words = build.options(build.find_host_compiler(build.find_toolkit()))
    assert words[:2] == ["-ccbin", "g++"]
    assert {*build.ROUNDING, "-Xcompiler=-ffp-contract=off", r"-Xcompiler=-Wa\,-W"} <= set(words)
    assert not any("fast" in word or "native" in word for word in words)


# --- architectures ------------------------------------------------------------------------------


def test_named_architectures(monkeypatch):
    for text, expected in (("9.0;8.0", (80, 90)), ("8.0, 10.0", (80, 100)), ("", ())):
        monkeypatch.setenv("IREVRNN_CUDA_ARCHS", text)
        assert build.named_archs() == expected
    monkeypatch.setenv("IREVRNN_CUDA_ARCHS", "8.0;sm_90")
    with pytest.raises(BuildError, match="such as '8.0;9.0'; got 'sm_90'"):
        build.named_archs()


def test_an_unknown_architecture_is_told_with_those_that_are_known(machine, folders):
    with pytest.raises(BuildError, match="knows .* 7.5, 8.0, 8.6, 9.0, 10.0, and not all of 7.0, "):
        build.build(folders, (70, 80))


def test_what_serves_a_gpu(machine, folders, monkeypatch):
    toolkit = build.find_toolkit()
    assert build.archs_for((86, 89, 90, 120), toolkit) == (86, 90, 100)
    monkeypatch.setattr(build, "gpus", lambda: (70, 80))
    with pytest.raises(BuildError, match="knows .* 7.5, .* not all of 7.0, 8.0.*VISIBLE_DEVICES"):
        build.build(folders, ())


@pytest.mark.parametrize("built, gpus, runs", [
    ((80,), (80,), True), ((86,), (80,), False), ((80, 90), (89,), True), ((75, 90), (80,), False),
    ((80,), (86,), True),  # machine code of the same major version
    ((80,), (90, 120), True),  # PTX
    ((90,), (80, 90), False),  # one of two GPUs
])  # fmt: skip
def test_what_a_library_runs_on(built, gpus, runs):
    assert build.runs(built, gpus) is runs


def test_machine_code_for_each_and_ptx_for_the_newest():
    text = " ".join(build.arch_options((80, 90)))
    assert text.count("code=sm_") == 2 and "arch=compute_80,code=sm_80" in text
    assert text.endswith("-gencode=arch=compute_90,code=compute_90")


# --- the library --------------------------------------------------------------------------------


@needs_compiler
def test_builds_for_the_gpu_that_is_there_and_then_takes_it_from_the_cache(machine, folders):
    library = build.build(folders, ())
    assert ctypes.CDLL(str(library)).ask() == 42
    (call,) = compilations(machine)
    assert "arch=compute_86,code=sm_86" in call and "sm_90" not in call
    assert build.build(folders, ()) == library and len(compilations(machine)) == 1
    assert build._archs_of(library) == (86,)


@needs_compiler
@pytest.mark.parametrize("change", ["nvcc", "one.cu", "answer.h", "archs"])
def test_what_is_built_from_anything_else_is_another_library(machine, folders, toolkit, change):
    before = build.build(folders, (80,))
    wanted = (80,)
    if change == "nvcc":
        newer = (machine / "bin" / "nvcc").read_text().replace("13.0", "13.1")
        script(machine / "bin" / "nvcc", newer)
    elif change == "archs":
        wanted = (80, 90)
    else:
        path = next(folder / change for folder in folders if (folder / change).exists())
        path.write_text(path.read_text() + "// changed\n")
    after = build.build(folders, wanted)
    assert after != before and before.exists() and after.exists()


@needs_compiler
def test_one_built_ahead_is_found_where_there_is_no_nvcc(machine, folders, monkeypatch):
    monkeypatch.setattr(build, "gpus", lambda: ())  # a login node
    library = build.build(folders, (80, 90))
    monkeypatch.setenv("CUDA_HOME", "/nonexistent")  # and a node with a GPU
    loaded = []
    monkeypatch.setattr(build.torch.ops, "load_library", loaded.append)
    for gpu in (86, 90, 120):
        monkeypatch.setattr(build, "gpus", lambda gpu=gpu: (gpu,))
        assert build.load.__wrapped__(folders) == ""
    assert loaded == [library] * 3

    monkeypatch.setattr(build, "gpus", lambda: (75,))  # which it does not run on
    assert "nvcc is missing: it is not in /nonexistent/bin" in build.load.__wrapped__(folders)
    assert len(loaded) == 3


@needs_compiler
def test_machine_code_comes_before_what_the_driver_must_compile(machine, folders, monkeypatch):
    own = build.build(folders, (90,))
    newer = build.build(folders, (80,))  # of another node that shares the cache
    assert build.built(folders) == [newer, own]
    loaded = []
    monkeypatch.setattr(build.torch.ops, "load_library", loaded.append)
    for gpu in (90, 86, 120):
        monkeypatch.setattr(build, "gpus", lambda gpu=gpu: (gpu,))
        assert build.load.__wrapped__(folders) == ""
    assert loaded == [own, newer, newer]


@needs_compiler
def test_a_gpu_that_none_in_the_cache_serves_gets_its_own(machine, folders, monkeypatch):
    build.build(folders, (90,))
    assert build.load.__wrapped__(folders) == ""
    assert {build._archs_of(library) for library in build.built(folders)} == {(86,), (90,)}


@pytest.mark.parametrize(
    "named, message",
    [("9.0", "names 9.0; the GPUs here are 8.6"), ("sm_86", "got 'sm_86'")],
)
def test_named_architectures_that_do_not_serve_the_gpu_are_said(
    machine, folders, monkeypatch, named, message
):
    monkeypatch.setenv("IREVRNN_CUDA_ARCHS", named)
    assert re.search(message, build.load.__wrapped__(folders))
    assert compilations(machine) == []


def test_no_gpu_builds_nothing(machine, folders, monkeypatch):
    monkeypatch.setattr(build, "gpus", lambda: ())
    assert build.load.__wrapped__(folders) == "PyTorch finds no GPU"
    assert compilations(machine) == []


@needs_compiler
def test_ahead_of_time_without_a_gpu(machine, folders, monkeypatch):
    assert build._archs_of(build.build(folders)) == (86,)
    monkeypatch.setattr(build, "gpus", lambda: ())
    assert build._archs_of(build.build(folders)) == build.DEFAULT_ARCHS
    monkeypatch.setenv("IREVRNN_CUDA_ARCHS", "7.5")
    assert build._archs_of(build.build(folders)) == (75,)


@needs_compiler
def test_a_failed_build_says_why_and_leaves_nothing(machine, folders, tmp_path):
    (folders[0] / "one.cu").write_text("int broken() { return undeclared_name; }\n")
    problem = build.load.__wrapped__(folders)
    assert "undeclared_name" in problem and "nvcc 13.0" in problem and "CUDAHOSTCXX" in problem
    assert not list((tmp_path / "cache").glob("cuda-*/*/build-*")) and not build.built(folders)


@needs_compiler
def test_a_damaged_library_is_built_again(machine, folders):
    library = build.build(folders, ())
    whole = library.read_bytes()
    library.unlink()  # rather than overwritten: this process has it loaded
    library.write_bytes(whole[: len(whole) * 9 // 10])
    assert build.built(folders) == []
    assert build.load.__wrapped__(folders) == ""
    assert ctypes.CDLL(str(library)).ask() == 42


@needs_compiler
def test_a_library_that_does_not_load_is_passed_over_and_built_again(machine, folders, capfd):
    library = build.build(folders, ())
    (library.parent / "foreign").write_text("of another machine")
    put(library.parent / "foreign", library)
    assert build.load.__wrapped__(folders) == ""
    assert ctypes.CDLL(str(library)).ask() == 42
    assert "passing over a library that does not load" in capfd.readouterr().err
