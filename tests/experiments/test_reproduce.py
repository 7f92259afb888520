"""Running notebooks: profiles, one figure alone, pages, and cells that fail."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from experiments import outputs, reproduce

DRAW = """
from pathlib import Path
Path("../build/quick/figures").mkdir(parents=True, exist_ok=True)
_ = Path("../build/quick/figures/two.svg").write_text("drawn")
"""


@pytest.fixture
def notebook(repository):
    """A repository with a notebook of two figures."""
    path = repository / "notebooks" / "01_a.ipynb"
    cells = [
        ('profile = "quick"', "parameters"), ("print('shared', profile)", None),
        ("print('one')", "figure:one"), (f"print('two')\n{DRAW}", "figure:two"),
        ("print('written')", "results"),
    ]  # fmt: skip
    content = new_notebook(
        cells=[
            new_code_cell(source, metadata={"tags": [tag] if tag else []}) for source, tag in cells
        ],
        metadata={
            "kernelspec": {"name": "python3", "display_name": "python", "language": "python"}
        },
    )
    nbformat.write(content, path)
    return path


def printed(target):
    cells = nbformat.read(target, as_version=4).cells
    return [output.get("text", "").strip() for cell in cells for output in cell.get("outputs", [])]


def test_all_cells_run_with_the_profile_and_become_a_page(notebook, capfd):
    assert reproduce.main(["--profile", "smoke", str(notebook)]) == 0
    target = notebook.parents[1] / "build/smoke/notebooks/01_a.ipynb"
    assert printed(target) == ["shared smoke", "one", "two", "written"]
    assert "shared smoke" in target.with_suffix(".html").read_text()
    shown = capfd.readouterr()
    assert shown.out.splitlines()[-1].endswith("build/smoke/notebooks/01_a.html")
    assert "WARNING" not in shown.err  # the kernel's, of another process


def test_one_figure_runs_what_it_needs(notebook, capsys):
    reproduce.main(["--figure", "two", str(notebook)])
    folder = notebook.parents[1] / "build/quick/notebooks"
    assert printed(folder / "two" / "01_a.ipynb") == ["shared quick", "two"]
    assert not (folder / "01_a.ipynb").exists()  # where a run of the whole notebook lies
    assert capsys.readouterr().out.splitlines()[-1] == "drawn: build/quick/figures/two.svg"


def test_the_paper_profile_runs_all_of_a_figures_part(notebook):
    content = nbformat.read(notebook, as_version=4)
    for cell, tag in zip(content.cells[2:], ("one", "two", "two"), strict=True):
        cell.metadata["tags"].append(f"part:{tag}")
    tags = [cell.metadata["tags"] for cell in reproduce._needed(content.cells, "two", True)]
    assert tags == [["parameters"], [], ["figure:two", "part:two"], ["results", "part:two"]]
    tags = [cell.metadata["tags"] for cell in reproduce._needed(content.cells, "two", False)]
    assert tags == [["parameters"], [], ["figure:two", "part:two"]]


def test_output_is_kept_with_a_hash_of_the_code(notebook, capsys):
    content = nbformat.read(notebook, as_version=4)
    content.cells[2].source = "import sys\nprint('a log', file=sys.stderr)\nprint('one')"
    nbformat.write(content, notebook)
    assert reproduce.main(["--keep", str(notebook)]) == 0
    kept = nbformat.read(notebook, as_version=4)
    assert [cell.source for cell in kept.cells] == [cell.source for cell in content.cells]
    assert printed(notebook) == ["shared quick", "one", "two", "written"]
    outputs.check(kept)

    kept.cells[1].source += "  # changed"
    with pytest.raises(outputs.OutputError, match="other code"):
        outputs.check(kept)
    content.cells[2].source = f"print({str(Path.home() / 'x')!r})"
    nbformat.write(content, notebook)
    with pytest.raises(SystemExit):
        reproduce.main(["--keep", str(notebook)])
    assert "of this machine" in capsys.readouterr().err
    assert printed(notebook) == []


@pytest.mark.parametrize(
    "output",
    [
        {"output_type": "stream", "name": "stderr", "text": "a log"},
        {"output_type": "display_data", "metadata": {}, "data": {"image/png": "A" * 200_000}},
        {"output_type": "stream", "name": "stdout", "text": "<object at 0x7f0011223344>"},
    ],
)
def test_output_that_is_not_fit_to_be_committed_is_named(notebook, output):
    content = nbformat.read(notebook, as_version=4)
    content.metadata["sources"] = outputs.digest(content)
    outputs.check(content)
    content.cells[2].outputs = [nbformat.from_dict(output)]
    with pytest.raises(outputs.OutputError, match=re.escape(content.cells[2].source)):
        outputs.check(content)


def test_a_figure_that_nothing_draws_is_refused(notebook, capsys):
    old = notebook.parents[1] / "build/quick/figures/three.svg"
    old.parent.mkdir(parents=True)
    old.write_text("of an earlier run")
    os.utime(old, (0, 0))
    with pytest.raises(SystemExit):
        reproduce.main(["--figure", "three", str(notebook)])
    assert "no cell of these notebooks draws three" in capsys.readouterr().err


def test_a_cell_that_fails_is_shown_and_nothing_runs_after_it(notebook, capsys):
    content = nbformat.read(notebook, as_version=4)
    content.cells[2].source = "1 / 0"
    nbformat.write(content, notebook)
    with pytest.raises(SystemExit) as stop:
        reproduce.main([str(notebook)])
    assert stop.value.code != 0
    said = capsys.readouterr().err
    assert "ZeroDivisionError" in said and "01_a.ipynb failed" in said
    assert printed(notebook.parents[1] / "build/quick/notebooks/01_a.ipynb")[-1:] != ["written"]
