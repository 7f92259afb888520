"""Notebooks: committed with the output of their code, and each one runs to its end."""

import json
import shutil
from pathlib import Path

import nbformat
import pytest

from experiments import outputs, reproduce
from experiments.provenance import provenance

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path):
    notebook = nbformat.read(path, as_version=4)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_they_are_few():
    assert [path.name[:2] for path in NOTEBOOKS] == [f"0{number}" for number in range(8)]


@every_notebook
def test_the_committed_output_is_of_this_code_and_of_no_one_machine(path):
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    outputs.check(notebook)
    assert any("image/png" in out.get("data", {}) for x in code_cells(path) for out in x.outputs)


def test_all_of_them_are_small():
    assert sum(path.stat().st_size for path in NOTEBOOKS) < 6e6


@every_notebook
def test_has_a_profile_to_choose(path):
    [parameters] = (c for c in code_cells(path) if "parameters" in c.metadata.get("tags", []))
    assert parameters.source.startswith('profile = "quick"') and "interactive" in parameters.source
    assert nbformat.read(path, as_version=4).metadata.kernelspec.name == "python3"


@pytest.fixture(scope="module")
def gathered(tmp_path_factory):
    """A folder for the results and figures of all notebooks."""
    return tmp_path_factory.mktemp("gathered")


@pytest.mark.slow
@every_notebook
def test_runs_to_its_end(path, tmp_path, monkeypatch, gathered):
    # In a repository of its own, so that a test run replaces no results.
    for folder in ("notebooks", "paper/results", "paper/weights"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.chdir(tmp_path)
    reproduce.run(tmp_path / "notebooks" / path.name, "smoke")
    made = tmp_path / "build" / "smoke"
    if path.stem.startswith(("00", "03")):  # of which nothing is kept
        assert not (made / "results").exists()
        return
    results = [json.loads(file.read_text()) for file in (made / "results").glob("*.json")]
    assert results and all(result["profile"] == "smoke" for result in results)
    for result in results:
        assert result.get("environment", result)["git_commit"] == provenance()["git_commit"]
    drawn = {file.stem for file in (made / "figures").glob("*.svg")}
    assert drawn
    assert drawn == {figure for result in results for figure in result["figures"]}
    for folder in ("results", "figures"):
        shutil.copytree(made / folder, gathered / folder, dirs_exist_ok=True)


@pytest.mark.slow
def test_the_paper_builds_from_all_of_them(gathered):
    from .test_paper import load_build  # skipped without Typst

    build = load_build()
    build.take_collected(gathered / "results", gathered / "figures")
    if len({*(gathered / "results").glob("*.json")}) < len(build.MADE_BY):
        pytest.skip("not all notebooks have run")
    build.build(gathered / "results", gathered / "figures", gathered / "paper.pdf", "smoke")
