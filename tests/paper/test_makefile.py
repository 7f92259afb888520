"""The set-up that make does on a bare machine, and its messages where something is missing.

A stand-in for Python notes how it is called, so that nothing is installed.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="needs make")

# "python -m venv" puts the stand-in itself in place; a module named in FAIL_ON fails.
PYTHON = """#!/bin/sh
echo "$@" >> "$CALLS"
case "$*" in *"$FAIL_ON"*) exit 1;; esac
[ "$2" = --notebook-of ] && echo notebooks/02_b.ipynb
[ "$2" = venv ] && mkdir -p .venv/bin && cp "$0" .venv/bin/python
exit 0
"""


@pytest.fixture
def make(tmp_path):
    """Run make in an empty project; returns exit status, last line on stderr and Python's calls."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "notebooks").mkdir()
    for name in ("02_b.ipynb", "01_a.ipynb", "draft.ipynb"):
        (tmp_path / "notebooks" / name).touch()
    python = tmp_path / "bin" / "python3"
    python.parent.mkdir()
    python.write_text(PYTHON)
    python.chmod(0o755)

    def run(*arguments, fail_on="nothing", **environment):
        calls = tmp_path / "calls"
        calls.write_text("")
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name not in ("VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "MAKEFLAGS", "CXX")
        }
        done = subprocess.run(
            ["make", "--no-print-directory", f"PYTHON={python}", *arguments],
            cwd=tmp_path,
            env={**inherited, "CALLS": str(calls), "FAIL_ON": fail_on, **environment},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        said = [line for line in done.stderr.splitlines() if line.startswith("irevrnn: ")]
        return done, "\n".join(said), calls.read_text()

    return run


def test_help_is_the_default_and_names_every_target(make):
    done, _, calls = make()
    [names] = re.findall(r"^\.PHONY: (.*) compiler profile$", MAKEFILE, re.MULTILINE)
    for target in names.split():
        assert f"make {target} " in done.stdout
    assert calls == ""


def test_sets_up_once(make):
    _, _, first = make("test")
    assert "-m venv --clear .venv" in first
    assert "-e .[all]" in first
    _, said, second = make("test", "ARGS=-x")
    assert second == "-m pytest -q -n auto --dist loadfile --no-loadscope-reorder -x\n"
    assert said == ""


def test_an_active_environment_is_used(make, tmp_path):
    active = tmp_path / "active"
    (active / "bin").mkdir(parents=True)
    shutil.copy(tmp_path / "bin" / "python3", active / "bin" / "python")
    for variables in (
        {"VIRTUAL_ENV": str(active)},
        {"CONDA_PREFIX": str(active), "CONDA_DEFAULT_ENV": "research"},
    ):
        done, _, _ = make("lint", **variables)
        assert done.returncode == 0
        assert f"{active}/bin/python -m ruff" in done.stdout
    assert not (tmp_path / ".venv").exists()

    make("lint", CONDA_PREFIX=str(active), CONDA_DEFAULT_ENV="base")
    assert (tmp_path / ".venv").exists()


@pytest.mark.parametrize(
    ("options", "way_out"),
    [
        ({"fail_on": "version_info"}, "Python 3.10 or newer is needed"),
        ({"fail_on": "ensurepip"}, "apt install python3-venv"),
        ({"fail_on": "pip install"}, "PIP_FIND_LINKS"),
        ({"VIRTUAL_ENV": "/nonexistent"}, "deactivate it"),
    ],
)
def test_a_message_in_one_line_names_what_is_missing(make, options, way_out):
    done, said, _ = make("test", **options)
    assert done.returncode != 0
    assert way_out in said and "\n" not in said


def test_a_failed_installation_is_tried_again(make):
    make("test", fail_on="pip install")
    done, _, calls = make("test")
    assert done.returncode == 0 and "-e .[all]" in calls


def test_cleaning_keeps_long_runs_and_what_is_installed(make, tmp_path):
    kept = ("paper/experiments/block/last.pt", "train/last.pt", "installed-active")
    for name in (*kept, "quick/notebooks/a.html"):
        (tmp_path / "build" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "build" / name).touch()
    assert make("clean")[0].returncode == 0
    files = {path for path in (tmp_path / "build").rglob("*") if path.is_file()}
    assert files == {tmp_path / "build" / name for name in kept}
    shutil.rmtree(tmp_path / "build")
    assert make("clean")[0].returncode == 0


def test_a_missing_compiler_is_a_warning(make, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "mkdir", "touch", "cp", "dirname"):
        (tools / name).symlink_to(shutil.which(name))
    (tools / "make").symlink_to(shutil.which("make"))
    done, said, _ = make("test", PATH=str(tools))
    assert done.returncode == 0, done.stderr
    assert "apt install g++" in said


def test_what_the_sanitizer_of_kernels_lacks_is_said(make, tmp_path):
    done, said, _ = make("sanitize", PATH="/usr/bin:/bin")
    assert done.returncode != 0 and "compute-sanitizer is not on PATH" in said
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "compute-sanitizer").symlink_to(shutil.which("true"))
    path = f"{tools}:/usr/bin:/bin"
    done, said, _ = make("sanitize", fail_on="is_available", PATH=path)
    assert done.returncode != 0 and said == "irevrnn: PyTorch finds no GPU"
    done, said, calls = make("sanitize", PATH=path)
    assert done.returncode == 0 and "-m irevrnn.kernels --cuda" in calls
    assert "== memcheck" in done.stdout and "== racecheck" in done.stdout


def test_reproduce_runs_the_notebooks_in_order_then_the_paper(make):
    done, _, calls = make("reproduce", "PROFILE=smoke")
    assert done.returncode == 0, done.stderr
    assert calls.splitlines()[-2:] == [
        "-m experiments.reproduce --profile smoke notebooks/01_a.ipynb notebooks/02_b.ipynb",
        "paper/build.py --profile smoke",
    ]
    assert "experiments.provenance" not in calls


def test_notebooks_get_their_output_all_or_some_from_committed_code(make):
    for arguments, named in (
        ((), "notebooks/01_a.ipynb notebooks/02_b.ipynb"),
        (("NOTEBOOK=02_b",), "notebooks/02_b.ipynb"),
    ):
        done, _, calls = make("notebooks", *arguments)
        assert done.returncode == 0, done.stderr
        assert calls.splitlines()[-2:] == [
            "-m experiments.provenance",
            f"-m experiments.reproduce --keep {named}",
        ]
    done, _, calls = make("notebooks", fail_on="experiments.provenance")
    assert done.returncode != 0 and "experiments.reproduce" not in calls


def test_the_paper_profile_needs_committed_code(make):
    done, _, calls = make("reproduce", "PROFILE=paper", fail_on="experiments.provenance")
    assert done.returncode != 0
    assert "-m experiments.provenance" in calls and "experiments.reproduce" not in calls


def test_one_figure_takes_its_notebook_alone(make):
    done, _, calls = make("reproduce", "FIGURE=curve")
    assert done.returncode == 0, done.stderr
    assert calls.splitlines()[-2:] == [
        "paper/build.py --notebook-of curve",
        "-m experiments.reproduce --profile quick --figure curve notebooks/02_b.ipynb",
    ]


def test_an_unknown_figure_runs_no_notebook(make):
    done, _, calls = make("reproduce", "FIGURE=curl", fail_on="--notebook-of")
    assert done.returncode != 0
    assert "paper/build.py --notebook-of curl" in calls and "experiments.reproduce" not in calls


def test_after_a_notebook_that_fails_no_paper_is_built(make):
    done, _, calls = make("reproduce", fail_on="experiments.reproduce")
    assert done.returncode != 0 and "paper/build.py" not in calls


def test_an_unknown_profile_is_refused_before_anything_else(make):
    done, said, calls = make("reproduce", "PROFILE=big")
    assert done.returncode != 0 and "smoke quick paper" in said
    assert calls == ""


def test_the_files_and_modules_of_the_commands_exist():
    sanitized = re.search(r"SANITIZED := \$\(patsubst %,(\S+)%(\S+),([\w ]+)\)", MAKEFILE)
    folder, ending, names = sanitized.groups()
    files = [f"{folder}{name}{ending}" for name in names.split()]
    files += re.findall(r"\b(?:tests|paper)/[\w/]+\.py", MAKEFILE)
    modules = re.findall(r"-m ((?:irevrnn|experiments)(?:\.\w+)*)", MAKEFILE)
    assert len(files) > 6 and len(modules) > 3
    paths = {module: ROOT / module.replace(".", "/") for module in modules}
    assert [name for name in files if not (ROOT / name).is_file()] == []
    assert [
        module
        for module, path in paths.items()
        if not (path.with_suffix(".py").is_file() or (path / "__main__.py").is_file())
    ] == []


def test_the_tests_of_the_gpu_are_found():
    command = ["make", "-n", "-C", str(ROOT), "-p", "-f", "Makefile", "help"]
    printed = subprocess.run(command, capture_output=True, text=True).stdout
    pattern = re.search(r"^GPU_TESTS = \$\(shell (.*)\)$", printed, re.MULTILINE)[1]
    done = subprocess.run(pattern, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert "tests/library/test_cuda.py" in done.stdout.split()
