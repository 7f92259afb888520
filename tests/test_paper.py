"""The paper builds from what the notebooks write, and from nothing else."""

import copy
import importlib.util
import json
import os
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("typst")

REPOSITORY = Path(__file__).resolve().parents[1]
PAPER = REPOSITORY / "paper"
SOURCES = [PAPER / "paper.typ", PAPER / "lib.typ", *sorted((PAPER / "sections").glob("*.typ"))]
TEXT = "\n".join(path.read_text() for path in SOURCES)
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="245" height="150"><path d="M0 0L9 9"/></svg>'


def load_build():
    """paper/build.py as a module: paper/ is no package."""
    spec = importlib.util.spec_from_file_location("paper_build", PAPER / "build.py")
    module = sys.modules["paper_build"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


paper = load_build()


# --- made-up results ----------------------------------------------------------------------------

ENVIRONMENT = {
    "git_commit": "0123456789" * 4,
    "versions": {"python": "3.12.0", "torch": "2.9.0"},
    "cpu": "a processor",
    "gpu": None,
    "threads": 2,
    "cores": 2,
}
METHODS = (
    "scan", "scan_store", "layer", "lstm", "gru", "autograd", "compiled_chunks", "checkpoint",
    "checkpoint_reentrant", "indrnn",
)  # fmt: skip
STACKS = (
    "recompute", "store", "checkpoint", "reversible", "store_fixed", "lstm", "gru", "autograd"
)  # fmt: skip


def accuracy(steps):
    errors = {"ours_median": 1e-6, "ours_max": 1e-4, "eager_median": 2e-6, "eager_max": 1e-4}
    return [{"steps": steps, "tensor": tensor, **errors} for tensor in ("z", "u")]


def benchmarked(steps, batch, hidden):
    times = {"median_ms": 12.5, "low_ms": 12.1, "high_ms": 13.2, "held_bytes": 4096}
    return {
        "steps": steps, "batch": batch, "hidden": hidden, "couplings": 3,
        "methods": {name: {**times, "repetitions": 9} for name in METHODS},
        "ratios": {name: 17.0 for name in (*METHODS[1:], "lstm_to_layer", "gru_to_layer")},
    }  # fmt: skip


def recognised(data_set, protocol, runs):
    accuracy = {"mean": 0.94, "lowest": 0.83, "highest": 0.98, "deviation_of_seeds": 0.004}
    return {
        "profile": "paper",
        **ENVIRONMENT,
        "data_set": data_set,
        "data": {"recordings": 140},
        "config": {
            "frames": 200, "hop": 100, "time": 0.2, "rotation": 15.0, "scale": 0.1,
            "num_layers": 2, "hidden_size": 64, "num_couplings": 1, "epochs": 40, "lr": 0.008,
            "val_subjects": 0, "recurrent_lr_scale": 1.0, "protocol": protocol,
        },
        "num_parameters": 6000,
        "num_runs": runs,
        "num_seeds": 3,
        "test_accuracy": accuracy,
        "test_accuracy_of_recordings": accuracy,
        "class_names": ["one", "two"],
        "accuracy_of_subjects": {"1": 0.9, "2": 0.98},
        "forest": {"trees": 300, "test_accuracy": 0.88},
    }  # fmt: skip


RESULTS = {
    "watch": recognised("seglearn watch", "5fold", 15),
    "utkinect": recognised("UTKinect-Action3D", "loso", 30),
    "derivation": {
        "profile": "paper",
        "environment": ENVIRONMENT,
        "inverse": {"max_error_float64": 4.4e-16, "max_error_float32": 2.4e-7},
        "gradient": {"max_error_autograd": 1e-14, "max_error_finite_differences": 3e-8},
        "division": [
            {"u": 0.0, "ours": 1e-5, "division": None},
            {"u": 1e-6, "ours": 1e-5, "division": 12.0},
        ],
        "accuracy": accuracy(98),
        "accuracy_long": accuracy(196),
        "saturation": {
            "steps": [1, 1000], "abs_c": [0.7, 9.4], "bound": [0.7, 12.0], "slope": [0.6, 2e-8],
        },
    },
    "mnist": {
        "profile": "paper",
        **ENVIRONMENT,
        "data_set": "MNIST",
        "data": {
            "sequence_length": 784, "train_size": 55000, "val_size": 5000, "test_size": 10000,
        },
        "config": {
            "hidden_size": 64, "num_layers": 3, "num_couplings": 3, "norm": "batch",
            "residual": True, "memory": "recompute", "epochs": 1, "batch_size": 64, "lr": 0.004,
            "permuted": False, "downsample": 4, "dropout": 0.1,
        },
        "num_parameters": 14282,
        "wall_seconds": 411.0,
        "val_accuracy": 0.9340,
        "test_accuracy": 0.9371,
    },
    "memory": {
        "profile": "paper",
        "environment": ENVIRONMENT,
        "held": [
            {"method": name, "steps": steps, "batch": 32, "hidden": 128, "couplings": 3,
             "bytes": 1000 * steps}
            for name in METHODS for steps in (100, 784)
        ],
        "bits": [{"activation": "identity", "forgetting": 0.1, "bits": 0.15, "entropy": 0.152}],
        "lengths": [
            {"method": name, "steps": steps, "batch": 1, "features": 1, "hidden": 64, "layers": 2,
             "held_bytes": steps, "peak_bytes": 3 * steps, "seconds": 4e-6 * steps}
            for name in STACKS for steps in (100, 1000)
        ],
        "training": {"store_fixed": [1.4, 1.3], "reversible": [1.4, 1.3], "recompute": [1.4, 1.3]},
        "peak": [
            {"method": name, "steps": 784, "batch": 32, "hidden": 128, "couplings": 3,
             "bytes": 10**8}
            for name in METHODS
        ],
    },
    "benchmark": {
        "profile": "paper",
        "environment": ENVIRONMENT,
        "threads": 1,
        "repetitions": 9,
        "shapes": [benchmarked(784, 32, 128), benchmarked(20, 128, 512)],
        "shapes_keeping_memory": [benchmarked(784, 32, 128), benchmarked(20, 128, 512)],
        "stacks": [
            {"steps": 784, "batch": 32, "features": 128, "hidden": 128, "layers": 2,
             "methods": {name: {"median_ms": 80.0, "held_bytes": 4096} for name in STACKS},
             "ratios": dict.fromkeys(STACKS, 1.5)}
        ],
    },
}  # fmt: skip


def write(folder, results):
    """Write results and minimal figures; return the two folders and the PDF's path."""
    for name in ("results", "figures"):
        (folder / name).mkdir(exist_ok=True)
    for name in paper.FIGURES:
        (folder / f"figures/{name}.svg").write_text(SVG)
    for name, data in results.items():
        (folder / f"results/{name}.json").write_text(json.dumps(data))
    return folder / "results", folder / "figures", folder / "paper.pdf"


def without(results, file, *keys):
    """A copy of the results that lacks one entry."""
    changed = copy.deepcopy(results)
    inner = changed[file]
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    return changed


# --- building -----------------------------------------------------------------------------------


def test_the_paper_builds_without_warnings(tmp_path):
    results, figures, pdf = write(tmp_path, RESULTS)
    assert paper.build(results, figures, pdf) == ""
    assert pdf.read_bytes().startswith(b"%PDF")
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_the_same_results_give_the_same_bytes(tmp_path):
    results, figures, pdf = write(tmp_path, RESULTS)
    paper.build(results, figures, pdf)
    first = pdf.read_bytes()
    paper.build(results, figures, pdf)
    assert pdf.read_bytes() == first


@pytest.mark.parametrize("profile", paper.PROFILES)
def test_the_first_page_names_a_small_profile(tmp_path, profile):
    results = {name: {**data, "profile": profile} for name, data in RESULTS.items()}
    results, figures, _ = write(tmp_path, results)
    compiler = paper.make_compiler(results, figures)
    notices = json.loads(compiler.query("<profile-notice>"))
    assert len(notices) == (profile != "paper")
    assert profile == "paper" or profile in json.dumps(notices)


@pytest.mark.parametrize("name", paper.NOTEBOOKS)
def test_a_missing_result_is_named(tmp_path, name):
    results, figures, pdf = write(tmp_path, RESULTS)
    (results / f"{name}.json").unlink()
    with pytest.raises(paper.BuildError, match=rf"{name}\.json.*{paper.NOTEBOOKS[name]}"):
        paper.build(results, figures, pdf)
    assert not pdf.exists()


def test_missing_figures_are_named(tmp_path):
    results, figures, pdf = write(tmp_path, RESULTS)
    for path in figures.iterdir():
        path.unlink()
    with pytest.raises(paper.BuildError) as error:
        paper.build(results, figures, pdf, "make reproduce")
    assert all(f"{name}.svg" in str(error.value) for name in paper.FIGURES)
    assert str(error.value).endswith("make reproduce")


def read_entries():
    """Every entry that the text reads by name, such as value("file", "key", 0)."""
    found = set()
    for arguments in re.findall(r"\bvalue\(([^()]*)\)", TEXT):
        keys = re.split(r",\s*", arguments)
        if all(re.fullmatch(r'"\w+"|\d+', key) for key in keys):
            found.add(tuple(json.loads(key) for key in keys))
    return sorted(found, key=str)


ENTRIES = read_entries()


def test_the_text_reads_every_result_file():
    assert {entry[0] for entry in ENTRIES} - set(paper.BROUGHT) == set(paper.NOTEBOOKS)
    assert len(ENTRIES) > 15


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: ".".join(map(str, entry)))
def test_a_missing_entry_is_named(tmp_path, entry):
    results, figures, pdf = write(tmp_path, without(RESULTS, *entry))
    path = r"\.".join(map(str, entry[1:]))
    with pytest.raises(paper.BuildError, match=rf"{entry[0]}\.json has no entry {path}"):
        paper.build(results, figures, pdf)


@pytest.mark.parametrize("key", sorted(set(re.findall(r'\b(?:run|config)\("(\w+)"', TEXT))))
def test_a_missing_fact_of_the_training_is_named(tmp_path, key):
    place = ("config", key) if key in RESULTS["mnist"]["config"] else (key,)
    results, figures, pdf = write(tmp_path, without(RESULTS, "mnist", *place))
    with pytest.raises(paper.BuildError, match=rf"mnist\.json has no entry .*{key}"):
        paper.build(results, figures, pdf)


def test_results_of_different_profiles_are_not_mixed(tmp_path):
    mixed = {**RESULTS, "mnist": {**RESULTS["mnist"], "profile": "quick"}}
    results, figures, pdf = write(tmp_path, mixed)
    with pytest.raises(paper.BuildError, match="different profiles"):
        paper.build(results, figures, pdf)


def test_data_that_nobody_brought_is_not_yet_run(tmp_path):
    with_it = write(tmp_path, RESULTS)
    (missing := tmp_path / "missing").mkdir()
    without_it = write(missing, {k: v for k, v in RESULTS.items() if k not in paper.BROUGHT})
    not_yet_run = []
    for results, figures, pdf in (with_it, without_it):
        assert paper.build(results, figures, pdf) == ""
        found = paper.make_compiler(results, figures).query("<not-yet-run>")
        not_yet_run.append(len(json.loads(found)))
    assert not_yet_run == [3, 4]


def test_a_method_that_could_not_run_leaves_a_dash(tmp_path):
    results = copy.deepcopy(RESULTS)
    for shape in results["benchmark"]["shapes"]:
        del shape["methods"]["compiled_chunks"], shape["ratios"]["compiled_chunks"]
    assert paper.build(*write(tmp_path, results)) == ""


def test_a_figure_older_than_its_result_is_stale(tmp_path):
    results, figures, pdf = write(tmp_path, RESULTS)
    made = (results / "derivation.json").stat().st_mtime
    for age, fresh in ((paper.ONE_RUN / 2, True), (2 * paper.ONE_RUN, False)):
        os.utime(figures / "division.svg", (made - age, made - age))
        if fresh:
            paper.build(results, figures, pdf)
        else:
            with pytest.raises(paper.BuildError, match=r"division\.svg is older than .*derivation"):
                paper.build(results, figures, pdf)


def test_the_command_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paper, "REPOSITORY", tmp_path)
    with pytest.raises(SystemExit) as stop:
        paper.main(["--profile", "quick"])
    assert "build/quick/results/mnist.json" in str(stop.value)
    assert "make reproduce PROFILE=quick" in str(stop.value)


# --- the text -----------------------------------------------------------------------------------


def test_the_build_knows_the_figures_of_the_text():
    assert set(re.findall(r'drawing\("(\w+)"', TEXT)) == set(paper.FIGURES)


@pytest.mark.parametrize("result", paper.NOTEBOOKS)
def test_the_notebooks_make_what_the_build_wants(result):
    notebook = json.loads((REPOSITORY / paper.NOTEBOOKS[result]).read_text())
    code = "\n".join(
        "".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"
    )
    # A notebook may make the same of several data sets, in a loop over their names.
    named = f'"{result}"' in code and "write_result(name," in code
    assert named or re.search(rf'write_result\(\s*"{result}"', code)
    for figure, source in paper.FIGURES.items():
        looped = f'"{{name}}_{figure.removeprefix(result + "_")}"'
        assert source != result or f'"{figure}"' in code or looped in code


def test_every_citation_is_in_the_bibliography_and_every_entry_is_cited():
    cited = set(re.findall(r"@([a-z]+\d{4})\b", TEXT))
    entries = re.findall(r"^@\w+\{(\w+),", (PAPER / "references.bib").read_text(), re.M)
    assert len(entries) == len(set(entries))
    assert cited == set(entries)


def test_the_files_that_sections_name_exist():
    lines = re.findall(r"#see\((.*?)\)", TEXT, re.S)
    named = {path for line in lines for path in re.findall(r'"(.+?)"', line)}
    assert len(named) > 10
    assert [path for path in sorted(named) if not (REPOSITORY / path).is_file()] == []


def test_no_measured_number_is_typed():
    # Equations and code aside, a decimal fraction or a number with a unit would be one.
    units = r"%|ms\b|s\b|seconds|minutes|hours|[kKMGT]i?B\b|bytes|times\b"
    number = rf"\d+\.\d+|\d[\d,]*\s*~?(?:{units})"
    for path in (PAPER / "sections").glob("*.typ"):
        text = re.sub(r"//.*", "", path.read_text())
        text = re.sub(r"\$[^$]*\$|`[^`]*`|\"[^\"\n]*\"", "", text)  # equations, code, strings
        text = re.sub(r"(?m)^#set .*|\b[\d.]+(?:pt|em|mm|fr)\b|\bwidth: \d+%", "", text)  # layout
        text = re.sub(r"#let .*|calc\.\w+\(.*?\)", "", text)
        assert re.findall(number, text) == [], path.name
