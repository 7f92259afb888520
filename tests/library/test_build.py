"""The just-in-time build, on sources so small that they compile in a moment."""

import ctypes
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from irevrnn.jit import build, commands, compiler
from irevrnn.jit import cache as caching
from irevrnn.jit.build import build_extension, once_per_process
from irevrnn.jit.commands import BuildError
from irevrnn.jit.compiler import Compiler, find_compiler

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "c++", "clang++"))), reason="needs a C++ compiler"
)

LIBRARY = "answer.so"
BUILD_AND_PRINT = f"""
import pathlib, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
from irevrnn.jit.build import build_extension
print(build_extension("{LIBRARY[:-3]}", sorted(pathlib.Path(sys.argv[1]).glob("*.cpp"))))
"""


def build_from(folder):
    return build_extension(LIBRARY[:-3], sorted(folder.glob("*.cpp")))


def load_from(folder):
    return build.load.__wrapped__(lambda: build_from(folder))


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


def start_build(sources, **environment):
    """Build in another process."""
    return subprocess.Popen(
        [sys.executable, "-c", BUILD_AND_PRINT, str(sources)],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@needs_compiler
def test_builds_once_saying_how_far_it_is_and_then_takes_it_from_the_cache(cache, sources, capfd):
    library = build_from(sources)
    assert ctypes.CDLL(str(library)).ask() == 42
    assert library.is_relative_to(cache)
    # PyTorch may say something of its own, as of a CUDA toolkit without a GPU.
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("irevrnn:")]
    assert len(lines) == 4 and "building answer" in lines[0] and "built answer in" in lines[3]
    assert [line[:14] for line in lines[1:3]] == ["irevrnn: [1/2]", "irevrnn: [2/2]"]
    assert {line[-7:] for line in lines[1:3]} == {"one.cpp", "two.cpp"}
    assert {path.name for path in library.parent.iterdir()} == CACHED

    assert build_from(sources) == library
    assert capfd.readouterr().err == ""


CACHED = {LIBRARY, f"{LIBRARY}.sha256", "lock"}


@needs_compiler
@pytest.mark.parametrize("name", ["answer.h", "one.cpp"])
def test_a_changed_file_makes_another_library(cache, sources, name):
    before = build_from(sources)
    path = sources / name
    path.write_text(path.read_text().replace("42", "43") + "// changed\n")
    after = build_from(sources)
    assert after != before
    assert ctypes.CDLL(str(after)).ask() == (43 if name == "answer.h" else 42)


@needs_compiler
def test_another_flag_compiler_or_pytorch_makes_another_library(cache, sources, monkeypatch):
    found = find_compiler()
    libraries = {build_from(sources)}
    for change in ({"flags": (*found.flags, "-O1")}, {"identity": "another"}):
        changed = Compiler(**{**vars(found), **change})
        monkeypatch.setattr(build, "find_compiler", lambda processor, changed=changed: changed)
        libraries.add(build_from(sources))
    monkeypatch.setattr(build, "TORCH", "0.0")
    libraries.add(build_from(sources))
    assert len(libraries) == 4


@needs_compiler
def test_headers_of_the_kernels_are_found_and_counted(cache, sources, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "SOURCES", tmp_path / "csrc")
    build.SOURCES.mkdir()
    (sources / "answer.h").rename(build.SOURCES / "answer.h")
    before = build_from(sources)
    assert ctypes.CDLL(str(before)).ask() == 42
    (build.SOURCES / "answer.h").write_text("inline int answer() { return 43; }\n")
    assert build_from(sources) != before


@needs_compiler
def test_processes_that_start_together_build_once(cache, sources):
    processes = [start_build(sources) for _ in range(4)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert all(process.returncode == 0 for process in processes), outputs
    assert len({library for library, _ in outputs}) == 1
    assert sum("irevrnn: building" in messages for _, messages in outputs) == 1


@needs_compiler
def test_a_process_that_stands_still_is_waited_for_no_longer_than_that(cache, sources, monkeypatch):
    library = build_from(sources)
    library.unlink()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(library.with_name("lock"))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout.readline() == b"locked\n"
    with monkeypatch.context() as patch:
        patch.setattr(caching, "PATIENCE", 0.3)
        with pytest.warns(RuntimeWarning, match="lock cannot be locked .*acquired.*IREVRNN_CACHE"):
            assert load_from(sources) is False
    holder.communicate()
    assert load_from(sources) is True


HOLD = """
import filelock, sys
with filelock.FileLock(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""


def raising(error):
    """A function that raises an error, whatever it is given."""

    def fail(*args, **kwargs):
        raise error

    return fail


@needs_compiler
@pytest.mark.parametrize("kind", [OSError, NotImplementedError])  # by filelock's version
def test_a_file_system_without_locks_is_named(cache, sources, monkeypatch, kind):
    monkeypatch.setattr(caching.FileLock, "acquire", raising(kind("No locks available")))
    with pytest.warns(RuntimeWarning, match="lock cannot be locked .*No locks.*IREVRNN_CACHE"):
        assert load_from(sources) is False


# --- builds that are ended ----------------------------------------------------------------------


@pytest.fixture
def hanging(tmp_path, monkeypatch):
    """A compiler that hangs, with a process that it started, while the folder is there.

    It writes the numbers of the two processes into a file in that folder.
    """
    folder = tmp_path / "hanging"
    folder.mkdir()
    monkeypatch.setenv(
        "CXX", script(tmp_path / "slow", HANG.format(folder, *find_compiler().command))
    )
    return folder


HANG = """
case "$*" in *" -c "*)
    if [ -d {0} ]; then
        sleep 300 & echo $$ $! > {0}/$$.part
        mv {0}/$$.part {0}/$$
        wait
    fi;;
esac
exec {1} "$@"
"""


def compilers(folder):
    """Numbers of the processes that hang."""
    return [int(word) for file in folder.glob("*[0-9]") for word in file.read_text().split()]


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")


@needs_compiler
@needs_proc
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_compilers_end_with_the_process_that_builds(cache, sources, hanging, name):
    builder = start_build(sources)
    wait_until(lambda: compilers(hanging))
    started = compilers(hanging)
    assert all(map(is_running, started))
    builder.send_signal(signal.Signals[name])
    builder.communicate(timeout=60)
    wait_until(lambda: not any(map(is_running, [*started, *compilers(hanging)])), seconds=20)
    assert not list(cache.glob("*/*.so"))


@needs_compiler
@pytest.mark.parametrize(
    ("python", "reason"), [(None, "no Python is known"), ("/bin/true", "may be no Python")]
)
def test_where_python_is_embedded(cache, sources, python, reason, monkeypatch):
    monkeypatch.setattr(sys, "executable", python)
    with pytest.warns(RuntimeWarning, match=reason):
        assert load_from(sources) is False


@needs_compiler
@needs_proc
def test_a_build_that_hangs_is_given_up_and_its_compilers_end(cache, sources, hanging, monkeypatch):
    monkeypatch.setattr(commands, "PATIENCE", 2)
    with pytest.warns(RuntimeWarning, match="did not end within 2 s"):
        assert load_from(sources) is False
    assert compilers(hanging)
    wait_until(lambda: not any(map(is_running, compilers(hanging))), seconds=20)
    assert not list(cache.glob("*/build-*"))


@needs_compiler
def test_a_killed_build_does_not_block_the_next(cache, sources, hanging):
    killed = start_build(sources)
    wait_until(lambda: compilers(hanging))
    waiting = start_build(sources)
    assert "building" in killed.stderr.readline()
    assert "waiting" in waiting.stderr.readline()
    hanging.rename(hanging.with_name("gone"))
    killed.kill()
    killed.communicate()

    library, messages = waiting.communicate(timeout=60)
    assert "irevrnn: built" in messages
    library = Path(library.strip())
    assert ctypes.CDLL(str(library)).ask() == 42
    assert {path.name for path in library.parent.iterdir()} == CACHED


@needs_compiler
def test_the_first_failure_ends_the_other_compilers(cache, sources, hanging, tmp_path, monkeypatch):
    (sources / "three.cpp").write_text("int broken() { return undeclared_name; }\n")
    hang_on_one = (tmp_path / "slow").read_text().replace('*" -c "*)', '*"/one.cpp"*)')
    (tmp_path / "slow").write_text(hang_on_one)
    monkeypatch.setenv("MAX_JOBS", "3")
    with pytest.raises(BuildError, match="undeclared_name"):
        build_from(sources)
    wait_until(lambda: not any(map(is_running, compilers(hanging))), seconds=20)
    assert not list(cache.glob("*/build-*"))


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


# --- what cannot be built -----------------------------------------------------------------------


RUN_SCAN = """
import sys, torch, irevrnn
inputs = [torch.randn(*shape) for shape in ((5, 2, 3), (2, 3), (2, 3), (3,), (2, 3), (2, 3))]
for _ in range(3):
    out, *_ = irevrnn.scan(*inputs)
assert torch.equal(out, irevrnn.reference.scan(*inputs)[0])
"""


def run_scan(**environment):
    """Return the warnings of three calls of ``scan`` that must run the reference."""
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
    assert not list(cache.glob("*/*.so"))


@needs_compiler
@pytest.mark.parametrize("library", ["no library", ""])
def test_a_compiler_whose_library_does_not_load_leaves_nothing(
    cache, sources, tmp_path, monkeypatch, library
):
    real = find_compiler().command[0]
    body = f"""case "$*" in
*-shared*) while [ "$1" != -o ]; do shift; done; printf '{library}' > "$2";;
*) exec {real} "$@";;
esac"""
    monkeypatch.setenv("CXX", script(tmp_path / "wrong", body))
    with pytest.warns(RuntimeWarning) as warned:
        assert load_from(sources) is False
    message = str(warned[0].message)
    assert len(warned) == 1 and f"{LIBRARY} does not load" in message
    assert "too short" in message or sys.platform != "linux"  # in the linker's words
    assert [path.name for path in cache.glob("*/*")] == ["lock"]


@needs_compiler
def test_a_compiler_that_does_not_answer_is_given_up(cache, sources, tmp_path, monkeypatch):
    monkeypatch.setattr(compiler, "PATIENCE", 0.5)
    monkeypatch.setenv("CXX", script(tmp_path / "asleep", "exec sleep 60"))
    with pytest.warns(RuntimeWarning, match="asleep did not answer within 0.5 s"):
        assert load_from(sources) is False


def test_a_machine_without_a_writable_folder_runs_the_reference(tmp_path):
    (tmp_path / "file").touch()
    nowhere = str(tmp_path / "file" / "home")
    (tmp_path / f"irevrnn-{os.getuid()}").touch()  # in the way of the temporary folder
    environment = {"HOME": nowhere, "TMPDIR": str(tmp_path), "IREVRNN_CACHE": "", **NO_XDG}
    (warning,) = run_scan(**environment)
    assert "no folder can be written" in warning and "IREVRNN_CACHE" in warning


NO_XDG = {"XDG_CACHE_HOME": ""}


def test_the_cache_is_where_the_system_keeps_others(sources, tmp_path):
    job = start_build(sources, IREVRNN_CACHE="", XDG_CACHE_HOME=str(tmp_path / "caches"))
    library, messages = job.communicate(timeout=120)
    assert job.returncode == 0, messages
    assert tmp_path / "caches" in Path(library.strip()).parents


@pytest.mark.parametrize(
    "option, reason", [("size=1M", "No space left on device"), ("noexec", "noexec")]
)
def test_a_full_device_or_one_without_code_is_done_without(tmp_path, option, reason):
    """Another one serves, if there is one; if not, the reference runs."""
    full = tmp_path / "full"
    full.mkdir()
    mount = f"mount -t tmpfs -o {option} none '{full}' && "
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
        assert reason in done.stderr
        return done

    path = "from irevrnn.jit.cache import locate; print(locate(*'ab', load=print)[0])"
    found = run(path.replace("'", '"'), tmp_path).stdout.strip()
    assert Path(found).is_relative_to(tmp_path / f"irevrnn-{os.getuid()}")
    assert run(RUN_SCAN, full).stderr.count("RuntimeWarning") == 1


def test_no_compiler_warns_once_and_the_reference_runs(cache):
    (warning,) = run_scan(CXX="/nonexistent")
    assert "CXX names '/nonexistent'" in warning
    (warning,) = run_scan(CXX="g++ 'x")
    assert "CXX is" in warning and "which a shell would not take" in warning


@needs_compiler
def test_the_compiler_tells_its_version_and_the_processors_abilities(monkeypatch, tmp_path):
    real = find_compiler()
    command = real.command[0]
    version = f'[ "$*" = --version ] && echo "g++ 99" && exit\nexec {command} "$@"'
    identities = {real.identity}
    for body in (version, f'exec {command} "$@" -mno-sse3', f'exec {command} "$@" -DPATCHED'):
        if "-mno" in body and platform.machine() != "x86_64":
            continue
        monkeypatch.setenv("CXX", script(tmp_path / "other", body))
        identities.add(find_compiler().identity)
    assert len(identities) == (4 if platform.machine() == "x86_64" else 3)


@needs_compiler
def test_own_flags_make_another_library(cache, sources, monkeypatch):
    before = build_from(sources)
    monkeypatch.setenv("IREVRNN_CXXFLAGS", "-DOWN='a b'")
    assert "-DOWN=a b" in find_compiler().flags
    assert build_from(sources) != before


@needs_compiler
def test_a_compiler_may_be_a_command_of_several_words(cache, sources, monkeypatch):
    monkeypatch.setenv("CXX", f"env LAUNCHED=1 {find_compiler()}")  # as in 'ccache g++'
    assert ctypes.CDLL(str(build_from(sources))).ask() == 42


@needs_compiler
def test_a_compiler_may_be_named_from_the_folder_at_hand(cache, sources, tmp_path, monkeypatch):
    script(tmp_path / "mine", f'exec {find_compiler()} "$@"')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CXX", "./mine")
    assert ctypes.CDLL(str(build_from(sources))).ask() == 42


@needs_compiler
@pytest.mark.skipif(platform.machine() != "x86_64", reason="names such a processor")
def test_own_flags_may_name_the_processor(monkeypatch):
    monkeypatch.setenv("IREVRNN_CXXFLAGS", "-march=x86-64-v2")
    found = find_compiler()
    assert "-march=native" not in found.flags and "__AVX2__" not in found.identity


def test_a_command_that_cannot_start_is_named(tmp_path):
    with pytest.raises(BuildError, match="No such file or directory: 'nowhere'"):
        dict(commands.run({"one": ["nowhere"]}, tmp_path, "failed"))


@needs_compiler
def test_a_package_without_its_sources_is_told(cache):
    with pytest.raises(BuildError, match="the sources of answer are missing"):
        build_extension("answer", [])
    assert not cache.exists()


def test_a_library_preloaded_into_python_is_not_for_the_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("LD_PRELOAD", "libasan.so")
    monkeypatch.setenv("KEPT", "this")
    echo = ["sh", "-c", 'echo "${LD_PRELOAD-none} $KEPT"']
    assert dict(commands.run({"echo": echo}, tmp_path, "")) == {"echo": "none this\n"}


@pytest.mark.parametrize("jobs, together", [("1", 1), ("3", 3)])
def test_max_jobs_bounds_the_compilers_that_run_at_a_time(monkeypatch, tmp_path, jobs, together):
    monkeypatch.setenv("MAX_JOBS", jobs)
    wait = ["sh", "-c", "touch $$.here; sleep 0.5; set -- *.here; echo $#; rm $$.here"]
    outputs = dict(commands.run({str(number): wait for number in range(6)}, tmp_path, ""))
    assert len(outputs) == 6 and max(map(int, outputs.values())) == together


@pytest.mark.parametrize("jobs", ["0", "-1", "two"])
def test_max_jobs_must_be_a_number(monkeypatch, tmp_path, jobs):
    monkeypatch.setenv("MAX_JOBS", jobs)
    with pytest.raises(BuildError, match=f"MAX_JOBS must be .*; got '{jobs}'"):
        next(commands.run({}, tmp_path, ""))


def test_the_warning_points_at_the_line_that_asked_and_tells_what_it_costs(cache, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import torch, irevrnn\n"
        "model = torch.nn.Sequential(irevrnn.IRevRNN(3, 4, memory='recompute'))\n"
        "with torch.no_grad():\n"
        "    model(torch.randn(2, 5, 3))\n"
    )
    done = subprocess.run(
        [sys.executable, str(program)], env={**os.environ, "CXX": "/nonexistent"}, text=True,
        capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{program}:4: RuntimeWarning" in done.stderr
    assert "2.4 times" in done.stderr and "0.8 times" in done.stderr


def test_an_empty_machine_is_told_what_to_install(cache, monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BuildError, match=r"apt install g\+\+"):
        find_compiler()


@needs_compiler
def test_an_old_compiler_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", script(tmp_path / "g++-4", "exit 1"))
    with pytest.raises(BuildError, match=r"g\+\+-4 does not take -std="):
        find_compiler()


@needs_compiler
@pytest.mark.parametrize("damage", [
    lambda whole: whole[: len(whole) * 9 // 10], lambda whole: bytes(len(whole)),
    lambda whole: whole[:-1] + b"x", lambda whole: b"no library", lambda whole: b"",
], ids=["truncated", "zeroed", "one byte", "text", "empty"])  # fmt: skip
def test_a_damaged_library_is_built_again(cache, sources, damage):
    library = build_from(sources)
    whole = library.read_bytes()
    library.unlink()  # rather than overwritten: this process has it loaded
    library.write_bytes(damage(whole))
    assert not caching.is_intact(library)  # or loading a truncated one would end this process
    assert load_from(sources) is True
    assert ctypes.CDLL(str(library)).ask() == 42


@needs_compiler
def test_a_library_of_another_machine_is_built_again(cache, sources):
    library = build_from(sources)
    foreign = library.with_name("foreign")
    foreign.write_text("no library of this machine")
    caching.put(foreign, library)
    assert load_from(sources) is True
    assert ctypes.CDLL(str(library)).ask() == 42


@needs_compiler
def test_a_library_that_others_may_use_stays_until_another_replaces_it(cache, sources, monkeypatch):
    library = build_from(sources)
    foreign = library.with_name("foreign")
    foreign.write_text("a library of theirs")
    caching.put(foreign, library)
    monkeypatch.setattr(build, "run", raising(BuildError("the compiler is broken")))
    with pytest.warns(RuntimeWarning, match="the compiler is broken"):
        assert load_from(sources) is False
    assert library.read_text() == "a library of theirs" and caching.is_intact(library)


@needs_compiler
def test_a_damaged_library_that_cannot_be_replaced_is_reported(cache, sources, monkeypatch):
    library = build_from(sources)
    library.unlink()
    library.write_text("no library")
    monkeypatch.setattr(os, "replace", raising(OSError("read-only file system")))
    with pytest.warns(RuntimeWarning, match="read-only file system"):
        assert load_from(sources) is False


@needs_compiler
def test_an_unwritable_cache_falls_back_to_the_temporary_folder(
    tmp_path, sources, monkeypatch, capfd
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("IREVRNN_CACHE", str(tmp_path / "file" / "cache"))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    library = build_from(sources)
    assert library.is_relative_to(temporary)
    assert "set IREVRNN_CACHE" in capfd.readouterr().err

    assert build_from(sources) == library
    (temporary / f"irevrnn-{os.getuid()}").chmod(0o777)  # others could put their code there
    with pytest.raises(OSError, match="IREVRNN_CACHE"):
        build_from(sources)


@needs_compiler
def test_a_filled_cache_may_be_read_only(cache, sources, monkeypatch):
    library, refuse = build_from(sources), raising(OSError("read-only file system"))
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert build_from(sources) == library


@needs_compiler
def test_command_line_prints_the_path(tmp_path):
    command = [sys.executable, "-m", "irevrnn.jit"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).name == "irevrnn_ops.so"
    assert "Warning" not in done.stderr

    without = {**os.environ, "CXX": "/nonexistent"}
    failed = subprocess.run(command, capture_output=True, text=True, env=without)
    assert failed.returncode == 1
    assert "/nonexistent" in failed.stderr and "Traceback" not in failed.stderr


def test_a_forked_child_can_load_while_the_parent_builds():
    """The child inherits a locked lock, whose owner is in the parent alone."""
    parent, building, built = os.getpid(), threading.Event(), threading.Event()

    @once_per_process
    def load():
        building.set()
        return os.getpid() != parent or built.wait(60)

    thread = threading.Thread(target=load)
    thread.start()
    assert building.wait(60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork in a process with threads
        child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if load() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    built.set()
    thread.join()
