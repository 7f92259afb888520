"""The paper builds from what the notebooks write, and from nothing else."""

import copy
import hashlib
import importlib.util
import json
import math
import re
from pathlib import Path

import pytest
import torch

from irevrnn.strategies.fixed_point import BitStack, decay_of, offset_of

pytest.importorskip("typst")

REPOSITORY = Path(__file__).resolve().parents[2]
PAPER = REPOSITORY / "paper"
SOURCES = [PAPER / "paper.typ", PAPER / "lib.typ", *sorted((PAPER / "sections").glob("*.typ"))]
TEXT = "\n".join(path.read_text() for path in SOURCES)
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="245" height="150"><path d="M0 0L9 9"/></svg>'


def load_build():
    """Load paper/build.py as a module: paper/ is no package."""
    spec = importlib.util.spec_from_file_location("paper_build", PAPER / "build.py")
    module = importlib.util.module_from_spec(spec)
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
    times = {"median_ms": 12.5, "low_ms": 12.1, "high_ms": 13.2, "saved_bytes": 4096}
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
        "forest": {
            "trees": 300, "test_accuracy": 0.88, "accuracy_of_subjects": {"1": 0.92, "2": 0.9},
        },
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
    "inverse": {
        "profile": "paper",
        "environment": ENVIRONMENT,
        "oscillators": {"drawn_apart": {"overdamped": 0.25}},
        "gradient_errors": {"steps": 100, "recompute": 1.6e-6, "reversible": 1.1e-6},
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
            "permuted": False, "downsample": 4, "dropout": 0.1, "read": "mean",
            "recurrent_lr_scale": 0.1, "coupling_lr_scale": 1.0,
            "activation": "tanh", "longest_period": 2000.0,
        },
        "num_parameters": 14282,
        "wall_seconds": 411.0,
        "val_accuracy": 0.9340,
        "test_accuracy": 0.9371,
    },
    "memory": {
        "profile": "paper",
        "environment": ENVIRONMENT,
        "saved": [
            {"method": name, "steps": steps, "batch": 32, "hidden": 128, "couplings": 3,
             "bytes": 1000 * steps}
            for name in METHODS for steps in (100, 784)
        ],
        "bits": [{"activation": "identity", "forgetting": 0.1, "bits": 0.15, "bound": 0.152}],
        "lengths": [
            {"line": name, "method": name, "steps": steps, "batch": 1, "memories": "u = 1",
             "saved_bytes": steps, "peak_bytes": 3 * steps, "seconds": 4e-6 * steps}
            for name in STACKS for steps in (100, 1000)
        ],
        "training": [
            {"memory": name, "seed": 0, "losses": [1.4, 1.3], "accuracy": 0.99}
            for name in ("store_fixed", "reversible", "recompute")
        ],
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
             "methods": {name: {"median_ms": 80.0, "saved_bytes": 4096} for name in STACKS},
             "ratios": dict.fromkeys(STACKS, 1.5)}
        ],
        "floor": [
            {"steps": steps, "batch": 32, "hidden": 128, "couplings": 3, "median_ms": 19.0,
             "tanh_ms": 8.7, "multiply_adds_ms": 2.4, "bytes_ms": 3.8, "floor_ms": 11.1,
             "over_floor": 1.71, "rates": {"tanh": 4.4e9, "multiply_adds": 5.7e10, "bytes": 1.8e10}}
            for steps in (784, 100_000)
        ],
        "two_threads": [
            {"steps": 784, "batch": 128, "hidden": 128, "couplings": 3, "speedup": 1.8, "busy": 1.2}
        ],
        "flatness": {
            "batch": 1, "hidden": 64, "highest_to_lowest": 1.1,
            "lengths": [{"steps": 1000}, {"steps": 1_000_000}],
        },
        "packed": [
            {"steps": 784, "batch": 128, "hidden": 128, "couplings": 3,
             "ratios": {"same_steps": 1.03, "padded": 0.51}}
        ],
    },
}  # fmt: skip


def experiment(task, group, label, figure="accuracy", runs=3):
    return {
        "name": label, "task": task, "group": group, "label": label, "figure": figure,
        "num_parameters": 9000, "mean": 0.9, "lowest": 0.88, "highest": 0.92, "runs": runs,
        "steps": 5000, "chance": 0.125, "seconds": 300.0,
    }  # fmt: skip


RESULTS["experiments"] = {
    "profile": "paper",
    "environment": ENVIRONMENT,
    "rows": [
        experiment("mnist", "Couplings", "R = 1"),
        experiment("adding", "Adding", "LSTM", "squared_error", 1),
        experiment("copy", "Copying", "LSTM", runs=1),
        experiment("sessions", "Sessions", "reversible", runs=5),
        experiment("signals", "Signals", "ECG, whole recordings", "mean_f1", 5),
    ],
    "made_from": {},
    "session": {
        "batch": 8, "steps": 12600,
        "saved": dict.fromkeys(("reversible", "checkpoint", "recompute", "store", "lstm"), 10**6),
    },
}  # fmt: skip
RESULTS["long_signals"] = {
    "profile": "paper",
    "environment": ENVIRONMENT,
    "memory": [
        {"method": method, "batch": 32, "steps": 18000, "peak_bytes": 10**8, "seconds": 1.5}
        for method in ("recompute", "checkpoint", "reversible")
    ],
}
FORECASTS = ("truncated-1000", "truncated-10000", "whole", "whole-after-truncated")
RESULTS["forecast"] = {
    "settings": {"minutes": 10.0},
    "linear": {"104": 3.5},
    "runs": {f"{method}/104": {"bits": 3.1, "updates": 60} for method in FORECASTS},
    "peak_bytes": dict.fromkeys(FORECASTS, 10**7),
}
RESULTS["frontier"] = {
    "profile": "paper",
    "environment": ENVIRONMENT,
    "rows": [
        {
            "method": method, "steps": 10**6, "batch": 1, "chunk": 1024, "rounds": rounds,
            "memories": memories, "peak_bytes": 12_000_000, "seconds": 8.1,
        }
        for method, rounds, memories in (
            ("reversible", 0, "u = 1"), ("reversible", 0, "up to 1,000 steps"),
            ("reversible", 0, "up to 10 steps"), ("checkpoint", 1, "up to 1,000 steps"),
            ("checkpoint", 2, "up to 1,000 steps"),
        )
    ],
}  # fmt: skip


def write(folder, results):
    """Write results and minimal figures; return the two folders and the PDF's path."""
    for name in ("results", "figures"):
        (folder / name).mkdir(exist_ok=True, parents=True)
    for name in paper.FIGURES:
        (folder / f"figures/{name}.svg").write_text(SVG)
    drawn = dict.fromkeys(paper.FIGURES, hashlib.sha256(SVG.encode()).hexdigest())
    for name, data in results.items():
        (folder / f"results/{name}.json").write_text(json.dumps({**data, "figures": drawn}))
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


@pytest.mark.parametrize("name", sorted(paper.NOTEBOOKS.keys() - set(paper.BROUGHT)))
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
        paper.build(results, figures, pdf, "quick")
    assert all(f"{name}.svg" in str(error.value) for name in paper.FIGURES)
    assert str(error.value).endswith("make reproduce PROFILE=quick")


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
    named = {entry[0] for entry in ENTRIES} - set(paper.BROUGHT)
    assert named == paper.NOTEBOOKS.keys() - set(paper.BROUGHT)
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


def test_the_paper_builds_without_the_data_that_people_bring(tmp_path):
    without = {k: v for k, v in RESULTS.items() if k not in paper.BROUGHT}
    assert paper.build(*write(tmp_path, without)) == ""


@pytest.mark.parametrize("tasks", [("mnist",), ("adding", "sessions"), ("copy",)])
def test_experiments_that_were_not_run_are_not_told_of(tmp_path, tasks):
    results = copy.deepcopy(RESULTS)
    rows = results["experiments"]["rows"]
    results["experiments"]["rows"] = [row for row in rows if row["task"] in tasks]
    assert paper.build(*write(tmp_path, results)) == ""


def with_an_experiment(folder, made_from=None):
    """The results, and an experiment that experiments.json was made from unless told otherwise."""
    text = json.dumps({"task": "mnist"})
    (folder / "results/experiments").mkdir(parents=True)
    (folder / "results/experiments/couplings-1.json").write_text(text)
    results = copy.deepcopy(RESULTS)
    if made_from is None:
        made_from = {"couplings-1": hashlib.sha256(text.encode()).hexdigest()}
    results["experiments"]["made_from"] = made_from
    return write(folder, results)


def test_experiments_are_those_that_the_table_was_made_from(tmp_path):
    assert paper.build(*with_an_experiment(tmp_path)) == ""


@pytest.mark.parametrize("made_from", [{}, {"couplings-1": "another"}])
def test_an_experiment_that_the_table_does_not_know_is_named(tmp_path, made_from):
    with pytest.raises(paper.BuildError, match=r": couplings-1 .*FIGURE=comparison\)"):
        paper.build(*with_an_experiment(tmp_path, made_from))


def test_a_network_of_blocks_is_told_of(tmp_path):
    results = copy.deepcopy(RESULTS)
    results["mnist"]["config"] |= {"block": True, "width": 32}
    assert paper.build(*write(tmp_path, results)) == ""


@pytest.mark.parametrize("name", ["block", "block-conserving", "tanh"])
def test_the_abstract_does_without_an_experiment(tmp_path, name):
    results = copy.deepcopy(RESULTS)
    rows = [experiment("mnist", "Blocks", x) for x in ("block", "block-conserving", "tanh")]
    results["experiments"]["rows"] += [row for row in rows if row["name"] != name]
    assert paper.build(*write(tmp_path, results)) == ""


def test_a_method_that_could_not_run_leaves_a_dash(tmp_path):
    results = copy.deepcopy(RESULTS)
    for shape in results["benchmark"]["shapes"]:
        del shape["methods"]["compiled_chunks"], shape["ratios"]["compiled_chunks"]
    assert paper.build(*write(tmp_path, results)) == ""


@pytest.mark.parametrize("key", ["floor", "two_threads", "flatness", "packed"])
def test_what_one_core_or_no_kernel_cannot_measure_is_left_out(tmp_path, key):
    if key == "floor":  # nothing of the scan alone
        results = without(RESULTS, "benchmark", key)
    else:
        results = copy.deepcopy(RESULTS)
        results["benchmark"][key] = None if key == "flatness" else []
    assert paper.build(*write(tmp_path, results)) == ""


def test_a_figure_that_another_run_has_drawn_is_not_taken(tmp_path):
    results, figures, pdf = write(tmp_path, RESULTS)
    (figures / "division.svg").write_text(SVG.replace("L9 9", "L9 8"))
    message = r"division\.svg .*derivation\.json .*PROFILE=paper FIGURE=division\)"
    with pytest.raises(paper.BuildError, match=message) as error:
        paper.build(results, figures, pdf)
    assert "accuracy.svg" not in str(error.value)


def test_the_command_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paper, "REPOSITORY", tmp_path)
    with pytest.raises(SystemExit) as stop:
        paper.main(["--profile", "quick"])
    assert "build/quick/results/mnist.json" in str(stop.value)
    assert "make reproduce PROFILE=quick" in str(stop.value)


# --- commits ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("provenance", "named"), [
    ({"git_commit": "0123"}, False),
    ({"git_commit": "0123-dirty"}, True),
    ({"git_commit": None}, True),
    ({}, True),
    ({"git_commit": "0123", "git_commits": ["0123", "4567"]}, False),
    ({"git_commit": "0123", "git_commits": ["4567-dirty", "0123"]}, True),
    ({"git_commit": "0123", "git_commits": [None, "0123"]}, True),
])  # fmt: skip
def test_results_from_uncommitted_code_are_named(tmp_path, provenance, named):
    (tmp_path / "experiments").mkdir()
    for result in (provenance, {"environment": provenance}):
        (tmp_path / "experiments/block.json").write_text(json.dumps(result))
        wanted = ["experiments/block.json"] if named else []
        assert paper.made_from_uncommitted(tmp_path) == wanted


def test_the_build_warns_of_results_from_uncommitted_code(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paper, "REPOSITORY", tmp_path)
    monkeypatch.setattr(paper, "build", lambda *arguments: "")
    (tmp_path / "paper/results").mkdir(parents=True)
    (tmp_path / "paper/results/mnist.json").write_text('{"git_commit": "0123-dirty"}')
    paper.main([])
    shown = capsys.readouterr()
    assert shown.out == "paper/paper.pdf\n"
    assert shown.err == "warning: not made from committed code: mnist.json\n"


def test_the_committed_results_were_made_from_committed_code():
    assert paper.made_from_uncommitted(PAPER / "results") == []


def test_the_committed_results_and_figures_go_together():
    paper.check_inputs(PAPER / "results", PAPER / "figures", "paper")


def test_the_notebook_of_a_figure(capsys):
    paper.main(["--notebook-of", "entropy"])
    assert capsys.readouterr().out == "notebooks/05_memory.ipynb\n"
    with pytest.raises(SystemExit, match="FIGURE=entropie is unknown: choose one of accuracy, "):
        paper.main(["--notebook-of", "entropie"])


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


def test_no_semicolon_of_the_text_is_swallowed():
    # Typst takes a semicolon behind an expression for its end; the text needs \; there.
    call = r"#[\w.-]+(?:\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\))+;"
    for path in (PAPER / "sections").glob("*.typ"):
        text = re.sub(r"//.*", "", path.read_text())
        assert re.findall(rf"{call}|[}}\]];\s|#[\w.-]+;", text) == [], path.name


def test_the_listing_of_the_decay_does_what_the_library_does():
    source = (PAPER / "sections/memory.typ").read_text()
    code = "\n".join(re.findall(r'code\("(.*?)"\)', source, re.S))
    stack: list[tuple[int, int]] = []

    def pop(bits):
        value, pushed = stack.pop()
        assert bits == pushed
        return value

    names = {
        "W": 2**32, "floor": math.floor, "pop": pop,
        "push": lambda value, bits: stack.append((int(value), bits)),
    }  # fmt: skip
    exec(code, names)
    forget, recall = names["forget"], names["recall"]
    generator = torch.Generator().manual_seed(0)
    anywhere = torch.randint(1 - 2**29, 2**29, (300,), generator=generator)
    h = torch.cat([torch.arange(-300, 300), anywhere])
    for u in (1.0, 0.9999, 0.7, 0.5, 0.3, 0.01):
        m, k = (int(x) for x in decay_of(torch.tensor(u)))
        names |= {"m": m, "k": k, "v": 1 / (1 - m / 2**32), "o": offset_of(0)}
        reference = BitStack(torch.tensor([u]), batch=len(h))
        p = [forget(x) for x in h.tolist()]
        assert p == reference.forget(h[:, None]).flatten().tolist()
        assert sum(bits for _, bits in stack) == reference.count()
        assert [recall(x) for x in reversed(p)] == h.flip(0).tolist()
        # Offsets for which the quotient in the floor is a whole number, or just below one.
        for x in h.tolist():
            for less in (0, 1):
                names["r"] = ((x >> k) * (2**32 - m) - less) % 2**32
                assert recall(forget(x)) == x
        assert stack == []
