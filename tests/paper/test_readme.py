"""The pages show what works: their code runs, and their commands, files and links exist."""

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
DOCUMENTS = [*PAGES, ROOT / "data" / "README.md", CONTRIBUTING]
TEXT = "\n".join(path.read_text() for path in DOCUMENTS)
MAKEFILE = (ROOT / "Makefile").read_text()
PYTHON_BLOCKS = [
    pytest.param(code, id=f"{page.name} {index}")
    for page in PAGES
    for index, code in enumerate(
        re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    )
]
MODULES = sorted(set(re.findall(r"-m ((?:irevrnn|experiments)(?:\.\w+)*)", TEXT)))


EXAMPLE = next(block for block in PYTHON_BLOCKS if "optimizer.step()" in block.values[0])


@pytest.mark.parametrize("code", [block for block in PYTHON_BLOCKS if block is not EXAMPLE])
def test_code_runs_as_written(code):
    exec(compile(code, "a page of the documentation", "exec"), {})


def test_the_example_of_the_readme_learns(capsys):
    exec(compile(EXAMPLE.values[0], "README.md", "exec"), {})
    losses = [float(x) for x in re.findall(r"loss ([\d.]+)", capsys.readouterr().out)]
    assert len(losses) == 4 and losses[0] > 1 and losses[-1] < 0.1


def test_pages_are_short():
    text = PAGES[0].read_text()
    assert len(text.splitlines()) <= 100 and len(text) <= 6000
    for page in PAGES[1:]:
        tables = r"(?s)<!-- table:.*?<!-- end -->|(?m:^\|[^\n]*)"
        rest = re.sub(tables, "", page.read_text())
        assert len(rest.split()) <= 900, page.name


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("module", MODULES)
def test_a_command_exists_and_explains_itself(module, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    assert not end.value.code and capsys.readouterr().out.startswith("usage:")


def test_make_targets_exist():
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", TEXT, re.MULTILINE))
    targets = set(re.findall(r"^([a-z]+):.* ## ", MAKEFILE, re.MULTILINE))
    assert {"reproduce", "test", "lint", "paper"} <= named <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text())
    inside = [target for target in targets if "://" not in target]
    missing = [target for target in inside if not (document.parent / target).exists()]
    assert not missing


def test_files_that_contributing_names_exist():
    names = re.findall(r"`([\w.]+/[\w./*]*|[\w.]+\.(?:py|md|toml|yml))`", CONTRIBUTING.read_text())
    assert len(names) > 20
    assert [name for name in names if not list(ROOT.glob(name.rstrip("/")))] == []
