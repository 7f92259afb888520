"""Figures and results: where they go, what they record, and that files are never half-written."""

import hashlib
import json
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from experiments import figures, provenance
from experiments.figures import theme

ROOT = Path(__file__).parents[2]


@pytest.fixture
def repository(repository, monkeypatch):
    """An empty repository, with the working directory where Jupyter has it."""
    monkeypatch.chdir(repository / "notebooks")
    matplotlib.use("agg")
    with matplotlib.rc_context():
        figures.style()
        yield repository
    plt.close("all")


def draw():
    return figures.drift([1, 10, 100], {"float32": [1e-7, 1e-6, 1e-5]}, [])


def test_small_profiles_and_the_paper_have_places_of_their_own(repository):
    assert figures.folder("smoke") == repository / "build" / "smoke"
    assert figures.folder("quick") == repository / "build" / "quick"
    assert figures.folder("paper") == repository / "paper"
    with pytest.raises(ValueError, match="smoke, quick, paper"):
        figures.folder("fast")


def test_outside_a_repository_the_package_has_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert figures.repository() == ROOT


def test_text_is_drawn_as_outlines(repository):
    figures.save(draw(), "name", "smoke")
    folder = repository / "build" / "smoke" / "figures"
    svg = (folder / "name.svg").read_text()
    assert "<svg" in svg
    assert "<text" not in svg, "text must not need a font where the figure is shown"


def test_the_same_numbers_give_the_same_file(repository):
    for name in ("first", "second"):
        figures.save(draw(), name, "smoke")
    folder = repository / "build" / "smoke" / "figures"
    assert (folder / "first.svg").read_bytes() == (folder / "second.svg").read_bytes()


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


def test_a_result_of_uncommitted_code_is_refused_for_the_paper_alone(repository, monkeypatch):
    monkeypatch.setattr(provenance, "REPOSITORY", repository)
    monkeypatch.setattr(provenance, "uncommitted", lambda repository: ("irevrnn/rnn.py",))
    with pytest.raises(provenance.UncommittedChangesError, match="irevrnn/rnn.py"):
        figures.write_result("name", {}, "paper")
    assert not (repository / "paper/results/name.json").exists()
    figures.write_result("name", {}, "quick")
    monkeypatch.setattr(provenance, "uncommitted", lambda repository: ())
    figures.write_result("name", {}, "paper")


def test_write_result_names_its_profile(repository):
    figures.write_result("name", {"b": None, "a": [1.5]}, "smoke")
    text = (repository / "build/smoke/results/name.json").read_text()
    assert json.loads(text) == {"a": [1.5], "b": None, "figures": {}, "profile": "smoke"}
    assert text.index('"a"') < text.index('"b"') < text.index('"profile"')
    assert text.endswith("}\n")


def test_a_result_names_the_figures_that_were_drawn_for_its_profile(repository):
    for name, profile in (("one", "smoke"), ("two", "smoke"), ("three", "quick")):
        figures.save(draw(), name, profile)
    figures.write_result("name", {}, "smoke")
    folder = repository / "build/smoke"
    recorded = json.loads((folder / "results/name.json").read_text())["figures"]
    assert recorded == {
        name: hashlib.sha256((folder / f"figures/{name}.svg").read_bytes()).hexdigest()
        for name in ("one", "two")
    }


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


def test_classes_have_their_names_or_numbers(repository):
    for names, shown in ((None, ["0", "1"]), (["wave", "jump"], ["wave", "jump"])):
        [axes] = figures.confusion([[3, 1], [0, 4]], "made up", names).axes
        for axis in (axes.xaxis, axes.yaxis):
            assert [label.get_text() for label in axis.get_ticklabels()] == shown
        assert [text.get_text() for text in axes.texts] == ["3", "1", "4"]


def test_each_moment_of_a_skeleton_has_its_bones(repository):
    movements = [np.random.default_rng(seed).normal(size=(4, 3, 3)) for seed in range(2)]
    figure = figures.skeletons(movements, ["a", "b"], [(0, 1), (1, 2)], "made up")
    assert len(figure.axes) == 8 and all(len(axes.get_lines()) == 2 for axes in figure.axes)


def test_every_run_of_a_comparison_is_shown_with_the_mean(repository):
    groups = {"one": {"a": [0.5, 0.7], "b": [0.9]}, "two": {"c": [0.1]}, "three": {"d": [0.2]}}
    figure = figures.comparison(groups)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title("left") for axes in shown] == list(groups)
    runs, mean, *_ = shown[0].get_lines()
    assert [*runs.get_xdata()] == pytest.approx([0.5, 0.3])  # errors
    assert mean.get_xdata()[0] == pytest.approx(0.4)
    assert [label.get_text() for label in shown[0].get_yticklabels()] == ["a", "b"]


def test_the_expected_best_is_drawn_against_trials_and_time(repository):
    trials, time = figures.expected_best({"a": ([0.5, 0.7], 3.0), "b": ([0.6], 1.0)}).axes
    assert [[*line.get_xdata()] for line in trials.get_lines()] == [[1, 2], [1]]
    assert [[*line.get_xdata()] for line in time.get_lines()] == [[3, 6], [1]]


def test_a_strategy_has_one_colour_in_all_figures(repository):
    labels = [
        "scan, recompute",
        "nn.GRU",
        "reversible, u = 1",
        "reversible",
        "checkpoint, 2 rounds",
    ]
    colours = theme.colours_of(labels)
    assert colours["reversible"] == colours["reversible, u = 1"] == theme.STRATEGIES["reversible"]
    assert colours["scan, recompute"] == theme.STRATEGIES["recompute"]
    assert colours["checkpoint, 2 rounds"] == theme.STRATEGIES["checkpoint"]
    assert colours["nn.GRU"] not in {colours[x] for x in labels if x != "nn.GRU"}
