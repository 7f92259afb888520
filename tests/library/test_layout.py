"""The tree: a library that stands alone, experiments beside it, imports without a circle."""

import ast
import subprocess
import sys
import zipfile
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import irevrnn

ROOT = Path(__file__).parents[2]
LIBRARY, EXPERIMENTS = ROOT / "irevrnn", ROOT / "experiments"
#: What the library may import; filelock comes with torch.
ALLOWED = {"torch", "numpy", "filelock", "irevrnn"}


def modules(package):
    """Every module of a package: {name: file}."""
    names = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imported(name, path, known):
    """The modules that a file imports, at any depth of its code; those of ``known`` in full."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(parents if node.level else []), *filter(None, [node.module])])
            inner = {f"{base}.{alias.name}" for alias in node.names}
            found |= inner & known.keys()
            if inner - known.keys():  # names that the module itself defines
                found.add(base)
    return found


def tops(names):
    return {name.partition(".")[0] for name in names}


# --- the library by itself ----------------------------------------------------------------------


def test_the_library_imports_torch_and_numpy_alone():
    known = modules(LIBRARY)
    found = {top for name, path in known.items() for top in tops(imported(name, path, known))}
    assert "torch" in found
    assert found <= sys.stdlib_module_names | ALLOWED


def test_the_wheel_holds_the_library_alone(tmp_path):
    pytest.importorskip("hatchling")
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(tmp_path)]
    command = [sys.executable, "-m", "pip", "wheel", *options, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    about = {name for name in names if ".dist-info/" in name}
    assert tops(name.replace("/", ".") for name in set(names) - about) == {"irevrnn"}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in LIBRARY.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert set(names) - about == wanted
    assert "irevrnn/py.typed" in names
    sources = {"kernels/csrc": (".h", ".cpp"), "cuda": (".cu", ".cuh", ".h", ".cpp")}
    for folder, kinds in sources.items():
        for kind in kinds:
            assert [n for n in names if n.startswith(f"irevrnn/{folder}/") and n.endswith(kind)]


def test_the_citation_names_this_version():
    assert f"\nversion: {irevrnn.__version__}\n" in (ROOT / "CITATION.cff").read_text()


# --- imports and sizes --------------------------------------------------------------------------


@pytest.mark.parametrize("package", [LIBRARY, EXPERIMENTS], ids=lambda path: path.name)
def test_imports_have_no_circle(package):
    known = modules(package)
    graph = {name: imported(name, path, known) & known.keys() for name, path in known.items()}
    assert sum(map(len, graph.values())) > 20
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


#: The rooms of the library, from the ground up: each imports from those before it.
FLOORS = ("kernels", "recurrences", "strategies", "modules", "onnx")


def test_imports_go_down_the_floors():
    known = modules(LIBRARY)
    floor = {name: FLOORS.index(name.split(".")[1]) for name in known if "." in name}
    up = [
        f"{name} imports {other}"
        for name, path in known.items()
        for other in imported(name, path, known) & floor.keys()
        if name in floor and floor[other] > floor[name]
    ]
    assert up == []


def test_the_library_has_few_entries():
    entries = {path.name for path in LIBRARY.iterdir()} - {"__init__.py", "py.typed", "__pycache__"}
    assert len(entries) <= 6, sorted(entries)


@pytest.mark.parametrize(("package", "limit"), [(LIBRARY, 300), (EXPERIMENTS, 450)])
def test_no_file_is_long(package, limit):
    kinds = {".py", ".h", ".cpp", ".cu", ".cuh"}
    files = (path for path in package.rglob("*") if path.suffix in kinds)
    lengths = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in files}
    assert {str(path): lines for path, lines in lengths.items() if lines > limit} == {}
