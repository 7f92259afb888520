"""The tables of figures on the pages are those of the committed results."""

import json
import re
import shutil
from pathlib import Path

import pytest

from experiments.catalogue import EXPERIMENTS
from experiments.page_tables import __main__ as page_tables
from experiments.page_tables import trained

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "paper" / "results"


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with the committed results and one page."""
    shutil.copytree(RESULTS, tmp_path / "paper" / "results")
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("no table\n")
    monkeypatch.setattr(page_tables, "REPOSITORY", tmp_path)
    return tmp_path


def marked(*names):
    return "\n".join(f"Before.\n\n<!-- table: {name} -->\n<!-- end -->" for name in names)


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_no_table_is_stale():
    page_tables.main(check=True)


def test_what_was_trained_is_collected_where_it_has_changed(repository, monkeypatch, capsys):
    for name in ("figures", "notebooks"):
        (repository / name).mkdir()
    (repository / "pyproject.toml").touch()
    shutil.copytree(ROOT / "paper" / "figures", repository / "paper" / "figures")
    monkeypatch.chdir(repository)
    file = repository / "paper" / "results" / "experiments.json"
    before = json.loads(file.read_text())
    page_tables.main(check=True)
    (repository / "paper" / "results" / "experiments" / "block.json").write_text("{}")
    with pytest.raises(SystemExit):
        page_tables.main(check=True)
    assert "experiments.json is stale: run make tables" in capsys.readouterr().out

    shutil.copy(RESULTS / "experiments" / "block.json", file.parent / "experiments")
    (repository / "paper" / "figures" / "bits.svg").unlink()
    page_tables.main()
    after = json.loads(file.read_text())
    assert {**after, "environment": 0} == {**before, "environment": 0}
    page_tables.main(check=True)


def test_every_table_is_on_a_page():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    names = re.findall(r"<!-- table: (\S+) -->", "\n".join(page.read_text() for page in pages))
    assert set(names) == set(page_tables.TABLES)


def test_rows_are_of_experiments_that_exist():
    names = {*trained.SMALL_DIGITS, *trained.DIGITS, *trained.RECORDINGS} - {*trained.NOTEBOOKS}
    assert names <= set(EXPERIMENTS)


def test_a_figure_that_changed_is_found_then_written(repository, capsys):
    page = repository / "docs" / "page.md"
    page.write_text(marked("small-digits", "speed"))
    page_tables.main()
    file = repository / "paper" / "results" / "experiments" / "block.json"
    mean = f"| {100 * json.loads(file.read_text())['test_accuracy']['mean']:.2f} % ("
    assert mean in page.read_text()
    page_tables.main(check=True)
    capsys.readouterr()

    edit(file, lambda result: result["test_accuracy"].update(mean=0.5))
    before = page.read_text()
    with pytest.raises(SystemExit) as exit:
        page_tables.main(check=True)
    assert exit.value.code == 1
    assert capsys.readouterr().out == "docs/page.md: table small-digits is stale: run make tables\n"
    assert page.read_text() == before

    page_tables.main()
    assert page.read_text() == before.replace(mean, "| 50.00 % (")


def test_minutes_are_of_the_processor_where_it_was_timed(repository):
    results = repository / "paper" / "results"
    file = results / "experiments" / "smnist-block.json"
    edit(file, lambda result: result.update(wall_seconds=1800.0, processor_seconds=180.0))
    changed, _ = page_tables.update(marked("digits"), results)
    assert "| 1.0, Intel Xeon | `smnist-block` |" in changed
    edit(file, lambda result: result.update(processor_seconds=None))
    changed, _ = page_tables.update(marked("digits"), results)
    assert "| not recorded, Intel Xeon | `smnist-block` |" in changed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (marked("sped"), "there is no table 'sped': choose from small-digits, "),
        ("<!-- table: speed -->\n", "a <!-- table: NAME --> has no <!-- end -->"),
        ("<!-- table: speed -->\n" + marked("digits"), "has no <!-- end -->"),
    ],
)
def test_a_wrong_mark_is_named(repository, text, message):
    (repository / "docs" / "page.md").write_text(text)
    with pytest.raises(SystemExit, match=f"docs/page.md: .*{re.escape(message)}"):
        page_tables.main()


def test_a_result_that_is_missing_or_incomplete_is_named(repository):
    (repository / "docs" / "page.md").write_text(marked("speed"))
    benchmark = repository / "paper" / "results" / "benchmark.json"
    edit(benchmark, lambda result: result["shapes"][0]["methods"].pop("gru"))
    with pytest.raises(SystemExit, match="table 'speed': its result has no entry 'gru'"):
        page_tables.main()
    benchmark.unlink()
    with pytest.raises(SystemExit, match=r"benchmark\.json cannot be read"):
        page_tables.main()
