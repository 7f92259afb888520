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

from experiments.bit_stack import BitStack, offset_of
from irevrnn.recurrences.fixed_point import decay_of

pytest.importorskip("typst")

REPOSITORY = Path(__file__).resolve().parents[2]
PAPER = REPOSITORY / "paper"
SOURCES = [PAPER / "paper.typ", PAPER / "lib.typ", *sorted((PAPER / "sections").glob("*.typ"))]
TEXT = "\n".join(path.read_text() for path in SOURCES)
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 245 150"><path d="M0 0L9 9"/></svg>'


def load_build():
    """Load paper/build.py as a module: paper/ is no package."""
    spec = importlib.util.spec_from_file_location("paper_build", PAPER / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


paper = load_build()

RESULTS = {path.stem: json.loads(path.read_text()) for path in (PAPER / "results").glob("*.json")}
# The temporary folders hold no experiments.
RESULTS["experiments"]["made_from"] = {}


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


def test_the_paper_builds_from_a_short_run_without_compiled_kernels(tmp_path):
    short = copy.deepcopy(RESULTS)
    errors, gradients = (short["inverse"][f"float_{x}"] for x in ("errors", "gradients"))
    errors["kept"] = {n: x for n, x in errors["kept"].items() if int(n) <= 10_000}
    ((steps, _),) = [min(gradients.items(), key=lambda entry: int(entry[0]))]
    short["inverse"]["float_gradients"] = {steps: {"recompute": 1e-5, "run back": 1e-5}}
    assert paper.build(*write(tmp_path, short)) == ""


def test_the_same_results_give_the_same_bytes_without_warnings(tmp_path):
    results, figures, pdf = write(tmp_path, RESULTS)
    assert paper.build(results, figures, pdf) == ""
    first = pdf.read_bytes()
    assert first.startswith(b"%PDF")
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


@pytest.mark.parametrize("name", sorted(paper.MADE_BY))
def test_a_missing_result_is_named(tmp_path, name):
    results, figures, pdf = write(tmp_path, RESULTS)
    (results / f"{name}.json").unlink()
    with pytest.raises(paper.BuildError, match=rf"{name}\.json.*{paper.MADE_BY[name]}"):
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
    assert {entry[0] for entry in ENTRIES} - set(paper.BROUGHT) == paper.MADE_BY.keys()
    assert len(ENTRIES) > 15


#: One of each file, and facts of the training, whose names the text puts together.
SOME = [
    *{entry[0]: entry for entry in ENTRIES}.values(),
    ("watch", "num_parameters"), ("watch", "config", "hidden_size"),
]  # fmt: skip


@pytest.mark.parametrize("entry", SOME, ids=lambda entry: ".".join(map(str, entry)))
def test_a_missing_entry_is_named(tmp_path, entry):
    results, figures, pdf = write(tmp_path, without(RESULTS, *entry))
    path = r"\.".join(map(str, entry[1:]))
    with pytest.raises(paper.BuildError, match=rf"{entry[0]}\.json has no entry {path}"):
        paper.build(results, figures, pdf)


def test_results_of_different_profiles_are_not_mixed(tmp_path):
    mixed = {**RESULTS, "mnist": {**RESULTS["mnist"], "profile": "quick"}}
    results, figures, pdf = write(tmp_path, mixed)
    with pytest.raises(paper.BuildError, match="different profiles"):
        paper.build(results, figures, pdf)


def test_the_paper_builds_without_the_data_that_people_bring(tmp_path):
    without = {k: v for k, v in RESULTS.items() if k not in paper.BROUGHT}
    assert paper.build(*write(tmp_path, without)) == ""


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
    with pytest.raises(paper.BuildError, match=r": couplings-1 .*make tables\)"):
        paper.build(*with_an_experiment(tmp_path, made_from))


def test_a_method_that_could_not_run_is_left_out(tmp_path):
    results = copy.deepcopy(RESULTS)
    for shape in results["benchmark"]["shapes"]:
        del shape["methods"]["compiled_chunks"], shape["ratios"]["compiled_chunks"]
    assert paper.build(*write(tmp_path, results)) == ""


@pytest.mark.parametrize("key", ["floor", "two_threads", "flatness"])
def test_what_one_core_or_no_kernel_cannot_measure_is_left_out(tmp_path, key):
    if key == "floor":  # nothing of the scan alone
        results = without(RESULTS, "benchmark", key)
    else:
        results = copy.deepcopy(RESULTS)
        results["benchmark"][key] = None if key == "flatness" else []
    assert paper.build(*write(tmp_path, results)) == ""


def test_a_figure_that_another_run_has_drawn_is_not_taken(tmp_path):
    results, figures, pdf = write(tmp_path, RESULTS)
    (figures / "drift.svg").write_text(SVG.replace("L9 9", "L9 8"))
    message = r"drift\.svg .*derivation\.json .*PROFILE=paper FIGURE=drift\)"
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
    assert capsys.readouterr().out == "notebooks/06_costs.ipynb\n"
    with pytest.raises(SystemExit, match="FIGURE=entropie is unknown: choose one of accuracy, "):
        paper.main(["--notebook-of", "entropie"])
    with pytest.raises(SystemExit, match="FIGURE=bits is drawn from committed results, by make t"):
        paper.main(["--notebook-of", "bits"])


def test_what_is_collected_is_taken_as_committed(tmp_path):
    folders = tmp_path / "results", tmp_path / "figures"
    paper.take_collected(*folders)
    taken = [path for folder in folders for path in folder.iterdir()]
    assert len(taken) == 1 + list(paper.FIGURES.values()).count("experiments")
    for path in taken:
        assert path.read_bytes() == (PAPER / path.parent.name / path.name).read_bytes()


# --- the text -----------------------------------------------------------------------------------


def test_the_main_text_has_eleven_pages_and_the_appendix_six():
    compiler = paper.make_compiler(PAPER / "results", PAPER / "figures")
    main, appendix = (found["value"] for found in json.loads(compiler.query("<last-page>")))
    assert main <= 11 and appendix - main <= 6


def test_the_abstract_has_at_most_170_words():
    text = (PAPER / "sections/abstract.typ").read_text().partition("*Abstract.*")[2]
    text = re.sub(r"#[\w-]+\((?:[^()]|\([^()]*\))*\)", "a number", text)
    assert 100 < len(re.sub(r"\$[^$]*\$", "x", text).split()) <= 170


def test_the_text_knows_what_draws_each_figure():
    compiler = paper.make_compiler(PAPER / "results", PAPER / "figures")
    names = [drawing["value"] for drawing in json.loads(compiler.query("<drawing>"))]
    assert len(names) > 5 and sorted(names) == sorted(set(names))
    assert set(names) <= set(paper.FIGURES)


def test_the_build_knows_the_figures_of_the_text():
    drawn = set(re.findall(r'drawing\("(\w+)"', TEXT))
    pages = (paper.REPOSITORY / "README.md", *(paper.REPOSITORY / "docs").glob("*.md"))
    shown = {x for page in pages for x in re.findall(r"figures/(\w+)\.svg", page.read_text())}
    assert drawn < set(paper.FIGURES) and set(paper.FIGURES) - drawn < shown


@pytest.mark.parametrize("result", [x for x in paper.MADE_BY if x != paper.COLLECTED])
def test_the_notebooks_make_what_the_build_wants(result):
    notebook = json.loads((REPOSITORY / paper.MADE_BY[result]).read_text())
    code = "\n".join(
        "".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"
    )
    # A notebook may make the same of several data sets, in a loop over their names.
    named = f'"{result}"' in code and "write_result(name," in code
    assert named or re.search(rf'write_result\(\s*"{result}"', code)
    tags = {tag for cell in notebook["cells"] for tag in cell["metadata"].get("tags", [])}
    if any(tag.startswith("part:") for tag in tags):
        mine = {figure for figure, source in paper.FIGURES.items() if source == result}
        assert {f"figure:{figure}" for figure in mine} <= tags
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
    source = (PAPER / "sections/decay.typ").read_text()
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
