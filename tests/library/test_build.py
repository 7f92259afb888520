"""The just-in-time build, on sources so small that they compile in a moment."""

import ctypes
import errno
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from irevrnn.jit import build, compiler, ninja
from irevrnn.jit.once_per_process import OncePerProcess

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="needs a C++ compiler"
)

BUILD_AND_PRINT = (
    "import sys, pathlib; from irevrnn.csrc import build;"
    "print(build.build(pathlib.Path(sys.argv[1])))"
)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the test's own."""
    monkeypatch.setenv("IREVRNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def sources(tmp_path):
    """Two files and a header, in a folder whose name a careless command line would trip over."""
    folder = tmp_path / "the $ources: here"
    folder.mkdir()
    (folder / "answer.h").write_text("inline int answer() { return 42; }\n")
    (folder / "one.cpp").write_text('#include "answer.h"\nint one() { return answer(); }\n')
    (folder / "two.cpp").write_text('int one();\nextern "C" int ask() { return one(); }\n')
    return folder


@pytest.fixture
def fresh_process(monkeypatch):
    """``load`` as a process sees it that has not called it yet."""
    once = OncePerProcess(lambda: build._load(build.SOURCES))
    monkeypatch.setattr(build, "_load_once", once)


def start_build(sources, **environment):
    """Build in another process, started from nothing."""
    return subprocess.Popen(
        [sys.executable, "-c", BUILD_AND_PRINT, str(sources)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@needs_compiler
def test_builds_once_and_then_takes_it_from_the_cache(cache, sources, capfd):
    library = build.build(sources)
    assert ctypes.CDLL(str(library)).ask() == 42
    assert library.is_relative_to(cache)
    # PyTorch may say something of its own, as of a CUDA toolkit without a GPU.
    first = [line for line in capfd.readouterr().err.splitlines() if line.startswith("irevrnn:")]
    assert [line.split(" (")[0] for line in first][:1] == ["irevrnn: building the C++ kernels"]
    assert len(first) == 2 and first[1].startswith("irevrnn: built the C++ kernels in ")
    assert sorted(path.name for path in library.parent.iterdir()) == [build.LIBRARY, "lock"]

    assert build.build(sources) == library
    assert capfd.readouterr().err == ""


@needs_compiler
@pytest.mark.parametrize("name", ["answer.h", "one.cpp"])
def test_a_changed_file_makes_another_library(cache, sources, name):
    before = build.build(sources)
    path = sources / name
    path.write_text(path.read_text().replace("42", "43") + "// changed\n")
    after = build.build(sources)
    assert after != before
    assert ctypes.CDLL(str(after)).ask() == (43 if name == "answer.h" else 42)


@needs_compiler
def test_key_names_flags_compiler_and_pytorch(sources, monkeypatch):
    compiler = build.find_compiler()
    keys = {build._key(compiler, sources)}
    for change in ({"flags": (*compiler.flags, "-O1")}, {"identity": "another"}):
        changed = build.Compiler(**{**vars(compiler), **change})
        keys.add(build._key(changed, sources))
    monkeypatch.setattr(build.torch, "__version__", "0.0")
    keys.add(build._key(compiler, sources))
    assert len(keys) == 4


@needs_compiler
def test_processes_that_start_together_build_once(cache, sources):
    processes = [start_build(sources) for _ in range(8)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert all(process.returncode == 0 for process in processes), outputs
    assert len({library for library, _ in outputs}) == 1
    assert sum("irevrnn: building" in messages for _, messages in outputs) == 1


def test_a_stale_lock_file_blocks_nobody(cache, sources, capfd):
    library = build.cached_path(build._key(build.find_compiler(), sources), build.LIBRARY)
    library.with_name("lock").write_text("4242")
    half = library.parent / "build-killed" / "one.o"
    half.parent.mkdir()
    half.write_text("half an object")
    assert build.build(sources) == library and not half.exists()
    assert "waiting" not in capfd.readouterr().err


@needs_compiler
def test_a_holder_that_stands_still_is_waited_for_no_longer_than_that(cache, sources, monkeypatch):
    lock = build.cached_path(build._key(build.find_compiler(), sources), "lock")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout.readline() == b"saved\n"
    with monkeypatch.context() as patch:
        patch.setattr(ninja, "PATIENCE", 0.3)
        with pytest.warns(RuntimeWarning, match=r"another process has saved .*lock.*IREVRNN_CACHE"):
            assert build._load(sources) is False
    holder.communicate()
    assert build._load(sources) is True


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("saved", flush=True)
sys.stdin.read()
"""


def test_a_file_system_without_locks_is_named(cache, sources, monkeypatch):
    import fcntl

    def refuse(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with pytest.warns(RuntimeWarning, match=r"lock cannot be locked .*No locks.*IREVRNN_CACHE"):
        assert build._load(sources) is False


@needs_compiler
def test_a_killed_build_does_not_block_the_next(cache, sources, tmp_path):
    # A compiler that hangs on the first file, for as long as the flag is there.
    flag = tmp_path / "hang"
    flag.touch()
    slow = tmp_path / "slow-compiler"
    slow.write_text(f'#!/bin/sh\ncase "$*" in *" -c "*) [ -e {flag} ] && sleep 30;; esac\n')
    with slow.open("a") as script:
        script.write(f'exec {build.find_compiler().command[0]} "$@"\n')
    slow.chmod(0o755)

    killed = start_build(sources, CXX=str(slow))
    wait_until(lambda: list(cache.glob("*/build-*/build.ninja")))
    waiting = start_build(sources, CXX=str(slow))
    assert "building" in killed.stderr.readline()
    assert "waiting" in waiting.stderr.readline()
    flag.unlink()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()

    library, messages = waiting.communicate(timeout=20)  # well before the hung compiler wakes up
    assert "irevrnn: built" in messages
    library = Path(library.strip())
    assert ctypes.CDLL(str(library)).ask() == 42
    assert sorted(path.name for path in library.parent.iterdir()) == [build.LIBRARY, "lock"]


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


RUN_SCAN = """
import sys, torch, irevrnn
inputs = [torch.randn(*shape) for shape in ((5, 2, 3), (2, 3), (2, 3), (3,), (2, 3), (2, 3))]
for _ in range(3):
    out, *_ = irevrnn.scan(*inputs)
assert torch.equal(out, irevrnn.reference.scan(*inputs)[0])
"""


def run_scan(**environment):
    """What three calls of ``scan`` warn of where they must run the reference."""
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", RUN_SCAN],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [line for line in done.stderr.splitlines() if "RuntimeWarning" in line]


def script(path, body):
    """A stand-in for a compiler."""
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_import_is_quick_and_compiles_nothing(cache, tmp_path):
    """The time counts the processor's, as other work on the machine is none of the import's."""
    code = (
        "import torch, time; before = time.process_time(); import irevrnn;"
        "print(time.process_time() - before)"
    )
    calls = tmp_path / "calls"
    spy = script(tmp_path / "spy", f"echo called >> {calls}; exit 1")
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "CXX": spy}, text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    assert float(done.stdout) < 2
    assert not calls.exists() and not cache.exists() and done.stderr == ""


@needs_compiler
@pytest.mark.parametrize("body", ["exit 1", "exit 0", 'exec g++ "$@" -fno-such-flag'])
def test_a_wrong_compiler_warns_once_and_the_reference_runs(cache, tmp_path, body):
    (warning,) = run_scan(CXX=script(tmp_path / "wrong", body))
    assert "slow PyTorch reference" in warning and "wrong" in warning
    assert not list(cache.glob(f"*/{build.LIBRARY}"))


@needs_compiler
@pytest.mark.parametrize("library", ["no library", ""])
def test_a_compiler_whose_library_does_not_load_leaves_nothing(cache, sources, tmp_path, library):
    real = build.find_compiler().command[0]
    body = f"""case "$*" in
*-shared*) while [ "$1" != -o ]; do shift; done; printf '{library}' > "$2";;
*) exec {real} "$@";;
esac"""
    environment = {"CXX": script(tmp_path / "wrong", body)}
    with pytest.MonkeyPatch.context() as patch, pytest.warns(RuntimeWarning) as warned:
        patch.setenv("CXX", environment["CXX"])
        assert build._load(sources) is False
    assert len(warned) == 1 and "made a library that does not load" in str(warned[0].message)
    assert [path.name for path in cache.glob("*/*")] == ["lock"]


@needs_compiler
def test_a_compiler_that_hangs_is_given_up(cache, sources, tmp_path, monkeypatch):
    monkeypatch.setattr(compiler, "PATIENCE", 0.5)
    monkeypatch.setenv("CXX", script(tmp_path / "asleep", "exec sleep 60"))
    with pytest.warns(RuntimeWarning, match="asleep did not answer within 0.5 s"):
        assert build._load(sources) is False

    real = build.find_compiler  # it answers, but does not come to an end with a file
    monkeypatch.undo()
    command = real().command[0]
    monkeypatch.setenv("IREVRNN_CACHE", str(cache))
    body = f'case "$*" in *" -c "*) sleep 60;; esac\nexec {command} "$@"'
    monkeypatch.setenv("CXX", script(tmp_path / "slow", body))
    monkeypatch.setattr(ninja, "PATIENCE", 1)
    started = time.monotonic()
    with pytest.warns(RuntimeWarning, match="the build did not end within 1 s"):
        assert build._load(sources) is False
    assert time.monotonic() - started < 30
    assert not list(cache.glob("*/build-*"))


def test_a_machine_without_a_writable_folder_runs_the_reference(tmp_path):
    (tmp_path / "file").touch()
    nowhere = str(tmp_path / "file" / "home")
    (tmp_path / f"irevrnn-{os.getuid()}").touch()  # in the way of the temporary folder
    environment = {"HOME": nowhere, "TMPDIR": str(tmp_path), "IREVRNN_CACHE": "", **NO_XDG}
    (warning,) = run_scan(**environment)
    assert "no folder can be written" in warning and "IREVRNN_CACHE" in warning


NO_XDG = {"XDG_CACHE_HOME": ""}


def test_a_read_only_home_is_done_without(sources, tmp_path):
    home = tmp_path / "home"
    home.touch()  # not even the superuser can make a folder in it
    job = start_build(
        sources, HOME=str(home), TMPDIR=str(tmp_path), IREVRNN_CACHE="", **NO_XDG
    )  # fmt: skip
    library, messages = job.communicate(timeout=120)
    assert job.returncode == 0, messages
    assert Path(library.strip()).is_relative_to(tmp_path / f"irevrnn-{os.getuid()}")
    assert "set IREVRNN_CACHE" in messages


def test_a_full_device_is_done_without(tmp_path):
    """Another one serves, if there is one; if not, the reference runs."""
    full = tmp_path / "full"
    full.mkdir()
    mount = f"mount -t tmpfs -o size=1M none '{full}' && "
    inside = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*inside, f"{mount} true"]).returncode:
        pytest.skip("no file system can be mounted here")

    def run(code, temporary):
        environment = {"IREVRNN_CACHE": str(full), "TMPDIR": str(temporary)}
        done = subprocess.run(
            [*inside, f"{mount} exec '{sys.executable}' -W always -c '{code}'"],
            env={**os.environ, **environment}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "No space left on device" in done.stderr
        return done

    path = "from irevrnn.jit.cache import cached_path; print(cached_path(*'ab'))"
    found = run(path.replace("'", '"'), tmp_path).stdout.strip()
    assert Path(found).is_relative_to(tmp_path / f"irevrnn-{os.getuid()}")
    assert run(RUN_SCAN, full).stderr.count("RuntimeWarning") == 1


def test_no_compiler_warns_once_and_the_reference_runs(cache):
    (warning,) = run_scan(CXX="/nonexistent")
    assert "CXX names '/nonexistent'" in warning


@needs_compiler
def test_the_compiler_tells_its_version_and_the_processors_abilities(monkeypatch, tmp_path):
    real = build.find_compiler()
    command = real.command[0]
    version = f'[ "$*" = --version ] && echo "g++ 99" && exit\nexec {command} "$@"'
    identities = {real.identity}
    for body in (version, f'exec {command} "$@" -mno-sse3', f'exec {command} "$@" -DPATCHED'):
        if "-mno" in body and platform.machine() != "x86_64":
            continue
        monkeypatch.setenv("CXX", script(tmp_path / "other", body))
        identities.add(build.find_compiler().identity)
    assert len(identities) == (4 if platform.machine() == "x86_64" else 3)


@needs_compiler
def test_own_flags_make_another_library(cache, sources, monkeypatch):
    before = build.build(sources)
    monkeypatch.setenv("IREVRNN_CXXFLAGS", "-DOWN='a b'")
    assert "-DOWN=a b" in build.find_compiler().flags
    assert build.build(sources) != before


def test_what_is_loaded_into_python_beforehand_is_not_for_the_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("LD_PRELOAD", "libasan.so")
    monkeypatch.setenv("KEPT", "this")
    returncode, output = ninja.run(["sh", "-c", 'echo "${LD_PRELOAD-none} $KEPT"'], tmp_path)
    assert (returncode, output) == (0, "none this\n")


def test_missing_setuptools_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.cpp_extension", None)
    with pytest.raises(build.BuildError, match="pip install setuptools"):
        ninja.torch_paths()


def test_no_compiler_warns_once_and_says_no(cache, fresh_process, monkeypatch):
    monkeypatch.setenv("CXX", "/nonexistent")
    with pytest.warns(RuntimeWarning, match="CXX names '/nonexistent'") as warned:
        assert build.load() is False
        assert build.load() is False
    assert len(warned) == 1


def test_an_empty_machine_is_told_what_to_install(cache, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(build.BuildError, match=r"apt install g\+\+"):
        build.find_compiler()


@needs_compiler
def test_an_old_compiler_is_named(monkeypatch, tmp_path):
    old = tmp_path / "g++-4"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    monkeypatch.setenv("CXX", str(old))
    with pytest.raises(build.BuildError, match=r"g\+\+-4 does not take -std="):
        build.find_compiler()


@needs_compiler
def test_missing_ninja(cache, sources, monkeypatch):
    monkeypatch.setattr(ninja.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(ninja.shutil, "which", lambda name: None)
    with pytest.raises(build.BuildError, match="pip install ninja"):
        ninja.ninja_command()


@needs_compiler
def test_broken_source_shows_the_compilers_message(cache, sources):
    (sources / "two.cpp").write_text("int broken() { return undeclared_name; }\n")
    with pytest.warns(RuntimeWarning, match="undeclared_name"):
        assert build._load(sources) is False
    assert not list(cache.glob("*/build-*"))


@needs_compiler
def test_a_damaged_library_is_built_again(cache, sources, monkeypatch):
    library = build.build(sources)
    library.unlink()  # rather than overwritten: this process has it loaded
    library.write_text("no library")
    assert build._load(sources) is True
    assert ctypes.CDLL(str(library)).ask() == 42


@needs_compiler
def test_a_damaged_library_that_cannot_be_replaced_is_reported(cache, sources, monkeypatch):
    library = build.build(sources)
    library.unlink()
    library.write_text("no library")

    def refuse(*args, **kwargs):
        raise OSError("read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.warns(RuntimeWarning, match="read-only file system"):
        assert build._load(sources) is False


@needs_compiler
def test_an_unwritable_cache_falls_back_to_the_temporary_folder(
    tmp_path, sources, monkeypatch, capfd
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("IREVRNN_CACHE", str(tmp_path / "file" / "cache"))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    library = build.build(sources)
    assert library.is_relative_to(temporary)
    assert "set IREVRNN_CACHE" in capfd.readouterr().err

    assert build.build(sources) == library
    (temporary / f"irevrnn-{os.getuid()}").chmod(0o777)  # others could put their code there
    with pytest.raises(OSError, match="IREVRNN_CACHE"):
        build.build(sources)


@needs_compiler
def test_a_filled_cache_may_be_read_only(cache, sources, monkeypatch):
    library = build.build(sources)

    def refuse(*args, **kwargs):
        raise OSError("read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert build.build(sources) == library


@needs_compiler
def test_command_line_prints_the_path(tmp_path):
    command = [sys.executable, "-m", "irevrnn.csrc"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).name == build.LIBRARY
    assert "Warning" not in done.stderr

    without = {**os.environ, "CXX": "/nonexistent"}
    failed = subprocess.run(command, capture_output=True, text=True, env=without)
    assert failed.returncode == 1
    assert "/nonexistent" in failed.stderr and "Traceback" not in failed.stderr


@needs_compiler
def test_a_forked_child_can_load_while_the_parent_builds():
    """The child inherits a taken lock, whose holder exists in the parent alone."""
    with build._load_once.lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork in a process with threads
        child = os.fork()
        if child == 0:
            os._exit(0 if build._load_once.lock.acquire(timeout=5) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
