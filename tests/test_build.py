"""The just-in-time build, on sources so small that they compile in a moment."""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from irevrnn.csrc import build

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
    monkeypatch.setattr(build, "_loaded", None)


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
    first = capfd.readouterr().err.splitlines()
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
    processes = [start_build(sources) for _ in range(4)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert all(process.returncode == 0 for process in processes), outputs
    assert len({library for library, _ in outputs}) == 1
    assert sum("irevrnn: building" in messages for _, messages in outputs) == 1


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
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    with pytest.raises(build.BuildError, match="pip install ninja"):
        build._ninja_command()


@needs_compiler
def test_broken_source_shows_the_compilers_message(cache, sources):
    (sources / "two.cpp").write_text("int broken() { return undeclared_name; }\n")
    with pytest.warns(RuntimeWarning, match="undeclared_name"):
        assert build._load(sources) is False
    assert not list(cache.glob("*/build-*"))


@needs_compiler
def test_an_unreadable_library_is_reported(cache, sources):
    library = build.build(sources)
    library.write_text("no library")
    with pytest.warns(RuntimeWarning, match=build.LIBRARY):
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
    command = [sys.executable, "-m", "irevrnn.csrc.build"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).name == build.LIBRARY

    without = {**os.environ, "CXX": "/nonexistent"}
    failed = subprocess.run(command, capture_output=True, text=True, env=without)
    assert failed.returncode == 1
    assert "/nonexistent" in failed.stderr and "Traceback" not in failed.stderr


@needs_compiler
def test_a_forked_child_can_load_while_the_parent_builds():
    """The child inherits a taken lock, whose holder exists in the parent alone."""
    with build._lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork in a process with threads
        child = os.fork()
        if child == 0:
            os._exit(0 if build._lock.acquire(timeout=5) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
