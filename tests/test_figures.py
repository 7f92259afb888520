"""Figures and results: where they go, what they say of themselves, and that they are whole."""

import json
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pytest

from irevrnn import figures

ROOT = Path(__file__).parents[1]


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """An empty repository, with the working directory where Jupyter has it."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path / "notebooks")
    matplotlib.use("agg")
    with matplotlib.rc_context():
        figures.style()
        yield tmp_path
    plt.close("all")


def draw():
    return figures.lost_increments([1, 10, 100], [1e-7, 1e-6, 1e-5])


def test_small_profiles_and_the_paper_have_places_of_their_own(repository):
    assert figures.folder("smoke") == repository / "build" / "smoke"
    assert figures.folder("quick") == repository / "build" / "quick"
    assert figures.folder("paper") == repository / "paper"
    with pytest.raises(ValueError, match="smoke, quick, paper"):
        figures.folder("fast")


def test_outside_a_repository_the_package_has_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert figures.repository() == ROOT


def test_save_writes_both_formats(repository):
    figures.save(draw(), "name", "smoke")
    folder = repository / "build" / "smoke" / "figures"
    assert sorted(path.name for path in folder.iterdir()) == ["name.png", "name.svg"]
    assert (folder / "name.png").read_bytes().startswith(b"\x89PNG")
    svg = (folder / "name.svg").read_text()
    assert "<svg" in svg
    assert "<text" not in svg, "text must not need a font where the figure is shown"


def test_the_same_numbers_give_the_same_file(repository):
    for name in ("first", "second"):
        figures.save(draw(), name, "smoke")
    folder = repository / "build" / "smoke" / "figures"
    for kind in ("svg", "png"):
        assert (folder / f"first.{kind}").read_bytes() == (folder / f"second.{kind}").read_bytes()


@pytest.mark.parametrize("profile", ["smoke", "quick"])
def test_a_small_profile_is_stamped_beside_the_axes(repository, profile):
    figure = draw()
    figures.save(figure, "name", profile)
    [stamp] = figure.texts
    assert stamp.get_text() == f"{profile} profile"
    axes = figure.axes[0].get_tightbbox()
    assert not axes.overlaps(stamp.get_window_extent())
    assert '<g id="stamp"' in (repository / f"build/{profile}/figures/name.svg").read_text()


def test_the_paper_profile_is_not_stamped(repository):
    figure = draw()
    figures.save(figure, "name", "paper")
    assert not figure.texts
    assert '<g id="stamp"' not in (repository / "paper/figures/name.svg").read_text()


def test_write_result_names_its_profile(repository):
    figures.write_result("name", {"b": None, "a": [1.5]}, "smoke")
    text = (repository / "build/smoke/results/name.json").read_text()
    assert json.loads(text) == {"a": [1.5], "b": None, "profile": "smoke"}
    assert text.index('"a"') < text.index('"b"') < text.index('"profile"')
    assert text.endswith("}\n")


def test_write_result_is_whole_or_not_at_all(repository, monkeypatch):
    figures.write_result("name", {"a": 1}, "smoke")
    folder = repository / "build/smoke/results"
    before = (folder / "name.json").read_text()

    with pytest.raises(ValueError, match="not JSON compliant"):  # JSON has no NaN
        figures.write_result("name", {"a": float("nan")}, "smoke")

    def fail_half_way(path, text, **options):
        path.write_bytes(text[: len(text) // 2].encode())
        raise OSError("the disk is full")

    monkeypatch.setattr(Path, "write_text", fail_half_way)
    with pytest.raises(OSError, match="full"):
        figures.write_result("name", {"a": 2}, "smoke")

    assert (folder / "name.json").read_text() == before
    assert [path.name for path in folder.iterdir()] == ["name.json"]
