"""The search of settings: the same for every method, resumed, and blind to the test data."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from experiments.provenance import UncommittedChangesError
from experiments.search import results
from experiments.search import trials as one_trial
from experiments.search.__main__ import main
from experiments.search.results import FIRST_SEED, best_of, result_file, run
from experiments.search.space import METHODS, SEARCHES, Choice, LogUniform, draw
from experiments.search.trials import choose_settings, configure, fit_schedule
from experiments.tasks import mnist
from experiments.train.config import ConfigError, updated
from experiments.train.model import count_parameters
from tests.experiments.fake_mnist import fake_mnist

RECORDED = Path(__file__).parents[2] / "paper/results/search"
PARAMETERS, MINUTES, LENGTH = 400, 0.004, 4  # digits of 2 by 2 pixels
SMALL = {"profile": "smoke"}
TIMED = one_trial.timed


@pytest.fixture(autouse=True)
def elsewhere(repository, monkeypatch):
    """A repository of its own with made-up digits, whose test part cannot be read."""
    digits = fake_mnist(lambda: pytest.fail("the test data was read"))
    monkeypatch.setattr(mnist, "load_mnist", lambda root: digits)
    small = dataclasses.replace(SEARCHES["mnist"], parameters=PARAMETERS)
    monkeypatch.setitem(SEARCHES, "mnist", small)
    # However fast the machine is: two steps fit into the time, and a validation.
    monkeypatch.setattr(one_trial, "timed", lambda config: (0.01, 0.01, 2))


def trials_of(result):
    return {name: entry["trials"] for name, entry in result["methods"].items()}


# --- the space ----------------------------------------------------------------------------------


def inside(value, of, length):
    if isinstance(of, Choice):
        ranges = [one for one in of.values if isinstance(one, LogUniform)]
        return value in of.values or any(inside(value, one, length) for one in ranges)
    scale = length if of.of_length else 1
    lowest, highest = (max(of.least, scale * end) for end in (of.lowest, of.highest))
    return lowest - 1e-9 <= value <= highest + 1e-9


@pytest.mark.parametrize(
    ("search", "length"), [("mnist", 200), ("permuted", 196), ("copy", 5000), ("adding", 5000)]
)
@pytest.mark.parametrize("name", METHODS)
def test_draws_fill_the_space(search, length, name):
    drawn = [draw(SEARCHES[search], name, trial, length) for trial in range(60)]
    for key, of in SEARCHES[search].ranges_of(name).items():
        values = [one[key] for one in drawn]
        if isinstance(of, Choice):
            assert {of.values.index(x) for x in values if x in of.values} == {
                place for place, x in enumerate(of.values) if not isinstance(x, LogUniform)
            }
        if not key.endswith("_period"):  # one bounds the other
            assert all(inside(value, of, length) for value in values), key
            assert len(set(values)) > 50 or isinstance(of, Choice)
    if "longest_period" in drawn[0]:
        oscillate = [one for one in drawn if one.get("num_couplings") != 0]
        assert all(2.1 <= one["shortest_period"] <= one["longest_period"] for one in oscillate)
        still = [one for one in drawn if one.get("num_couplings") == 0]
        assert all(one["longest_period"] is None for one in still)


def test_common_settings_are_drawn_alike_and_others_apart():
    for trial in range(5):
        drawn = [draw(SEARCHES["mnist"], name, trial, 100) for name in METHODS]
        for key in ("lr", "weight_decay", "read"):
            assert len({one[key] for one in drawn}) == 1
        longest = {one["longest_memory"] for one in drawn if "longest_memory" in one}
        assert len(longest) == 6  # two of ours, IndRNN, LRU, RG-LRU and S6
        assert drawn == [draw(SEARCHES["mnist"], name, trial, 100) for name in METHODS]
    assert len({draw(SEARCHES["mnist"], "lru", trial, 100)["lr"] for trial in range(50)}) == 50


def chosen(search, method, trial, profile):
    settings = choose_settings(SEARCHES[search], method, trial, profile)
    return configure(SEARCHES[search], method, settings, profile)


@pytest.mark.parametrize("name", METHODS)
def test_networks_have_about_as_many_parameters(name):
    for trial in range(4):
        config = chosen("adding", name, trial, "paper")
        count = count_parameters(config.model.build(config.task(torch.device("cpu"))))
        assert count == pytest.approx(SEARCHES["adding"].parameters, rel=0.06)
        assert not config.test and config.keep == "last"


def test_answers_along_the_sequence_are_read_where_they_are():
    settings = [
        chosen("copy", name, trial, "smoke")
        for name in ("mingru", "irevrnn-u1")  # whose periods would be too short
        for trial in range(8)
    ]
    assert {config.model.read for config in settings} == {"last"}


# --- the schedule -------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [3.0, 10.0, 77.7, 600.0, 1e4])
@pytest.mark.parametrize(("step", "validation"), [(0.01, 0.5), (0.3, 2.0), (2.0, 0.9)])
@pytest.mark.parametrize("all_steps", [1, 7, 550])
def test_the_schedule_takes_the_time(seconds, step, validation, all_steps):
    epochs, steps = fit_schedule(seconds, step, validation, all_steps)
    assert 1 <= steps <= all_steps
    assert epochs * (steps * step + validation) <= seconds * (1 + 1e-9)
    # No other schedule has more steps.
    most = 0
    for other in range(1, 2 + int(seconds / (step + validation))):
        most = max(most, other * min(all_steps, int((seconds / other - validation) / step + 1e-9)))
    assert most - epochs <= epochs * steps <= most  # a part of a step of each epoch is lost


def test_a_time_for_no_step_is_refused():
    with pytest.raises(
        ConfigError, match="minutes must be enough for a step and a validation, 0.0"
    ):
        fit_schedule(0.9, 0.5, 0.5, 10)


# --- the search ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_method_gets_the_same_trials(capsys):
    result = run("mnist", tuple(METHODS), 2, MINUTES, **SMALL)
    assert result == json.loads(Path("build/smoke/results/search/mnist.json").read_text())
    assert result["minutes"] == MINUTES and result["parameters"] == PARAMETERS
    assert list(result["methods"]) == list(METHODS)
    for name, trials in trials_of(result).items():
        ranges = SEARCHES["mnist"].ranges_of(name)
        assert [trial["seed"] for trial in trials] == [0, 1]
        for trial in trials:
            assert trial["settings"].keys() - {"hidden_size", "width"} == ranges.keys() - {"units"}
            assert trial["num_parameters"] == pytest.approx(PARAMETERS, rel=0.35)
            assert trial["steps"] == trial["epochs"] * trial["epoch_steps"] > 0
            assert trial["processor_seconds"] > 0 and trial["versions"]["torch"]
        accuracies = [trial["val_accuracy"] for trial in trials]
        assert accuracies[result["methods"][name]["best"]] == max(accuracies)
    assert capsys.readouterr().out.count("s of the processor") == 2 * len(METHODS)


def test_what_is_done_is_not_done_again(monkeypatch):
    first = run("mnist", ("lru", "gru"), 2, MINUTES, **SMALL)
    real, done = results.run_trial, []

    def counted(config, minutes):
        done.append(config.model.name)
        return real(config, minutes)

    monkeypatch.setattr(results, "run_trial", counted)
    assert run("mnist", ("lru", "gru"), 2, MINUTES, **SMALL) == first and not done
    more = run("mnist", ("gru", "lstm"), 3, MINUTES, **SMALL)
    assert sorted(done) == ["gru", "lstm", "lstm", "lstm"]
    assert trials_of(more)["lru"] == trials_of(first)["lru"]
    assert trials_of(more)["gru"][:2] == trials_of(first)["gru"]


def test_a_stopped_trial_starts_again(monkeypatch):
    monkeypatch.setattr(one_trial, "timed", lambda config: (0.1, 0.0, 2))  # schedules alike
    straight = run("mnist", ("lru", "gru"), 2, 0.02, **SMALL)
    Path("build").rename("before")
    real, begun = one_trial.train, []

    def stopped(config, **options):
        begun.append(config)
        if len(begun) == 3:
            raise KeyboardInterrupt
        return real(config, **options)

    monkeypatch.setattr(one_trial, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        run("mnist", ("lru", "gru"), 2, 0.02, **SMALL)
    half = json.loads(result_file("mnist", "smoke").read_text())
    assert [len(trials) for trials in trials_of(half).values()] == [1, 1]
    whole = run("mnist", ("lru", "gru"), 2, 0.02, **SMALL)
    assert len(begun) == 5 and begun[2] == begun[3]
    for name, trials in trials_of(whole).items():
        for one, other in zip(trials, trials_of(straight)[name], strict=True):
            for key in ("settings", "val_accuracy", "epochs", "epoch_steps"):
                assert one[key] == other[key]


def test_trials_of_another_space_are_not_mixed(monkeypatch):
    run("mnist", ("lru",), 1, MINUTES, **SMALL)
    with pytest.raises(ConfigError, match="minutes is 0.5, but the trials in .*mnist.json had 0.0"):
        run("mnist", ("lru",), 1, 0.5, **SMALL)
    ranges = {"lru": {"lr": LogUniform(0.1, 0.2)}}
    changed = dataclasses.replace(results.SEARCHES["mnist"], ranges=ranges)
    monkeypatch.setitem(results.SEARCHES, "mnist", changed)
    with pytest.raises(ConfigError, match="ranges is .*, but the trials in .* had .*: choose"):
        run("mnist", ("lru",), 2, MINUTES, **SMALL)


def test_a_trial_that_fails_counts(monkeypatch):
    def fail(config, **options):
        raise FloatingPointError("the training loss is nan")

    with monkeypatch.context() as patch:
        patch.setattr(one_trial, "train", fail)
        result = run("mnist", ("gru",), 1, MINUTES, **SMALL)
    [trial] = trials_of(result)["gru"]
    assert trial["error"] == "the training loss is nan" and result["methods"]["gru"]["best"] is None
    result = run("mnist", ("gru",), 2, MINUTES, **SMALL)
    assert result["methods"]["gru"]["best"] == 1 and "error" in trials_of(result)["gru"][0]


def test_the_best_has_the_highest_accuracy_or_the_lowest_error():
    assert best_of([{"val_accuracy": 0.2}, {"val_accuracy": 0.7}, {"error": "inf"}]) == 1
    assert best_of([{"val_squared_error": 0.2}, {"val_squared_error": 0.7}]) == 0
    assert best_of([{"error": "inf"}]) is None


def test_a_better_trial_takes_away_the_test_of_another_setting():
    entry = {"trials": [], "best": None}
    for accuracy, best in ((0.5, 0), (0.4, 0), (0.6, 2)):
        results._add_trial(entry, {"val_accuracy": accuracy})
        assert entry["best"] == best and ("test" in entry) == (accuracy == 0.4)
        entry["test"] = {}


def test_a_result_for_the_paper_needs_committed_code(monkeypatch):
    asked = []

    def refuse(folder):
        asked.append(folder)
        raise UncommittedChangesError("commit first")

    monkeypatch.setattr(results, "require_clean", refuse)
    with pytest.raises(UncommittedChangesError):
        run("mnist", ("gru",), 1, MINUTES)
    assert asked == [Path.cwd() / "paper"]


@pytest.mark.parametrize("content", ["", "[]", '{"minutes": 1}'])
def test_a_file_that_is_no_result_is_named(content):
    result_file("mnist", "smoke").write_text(content)
    with pytest.raises(ConfigError, match=r"mnist\.json is no result of a search: "):
        run("mnist", ("lru",), 1, MINUTES, **SMALL)


# --- the tests ----------------------------------------------------------------------------------


def test_the_best_setting_is_tested_once_with_new_seeds(monkeypatch, capsys):
    words = ["mnist", "gru", "irevrnn", "irevrnn-u1", "--profile", "smoke"]
    run("mnist", words[1:4], 2, MINUTES, **SMALL)
    reads = []
    digits = fake_mnist(lambda: reads.append(1))
    monkeypatch.setattr(mnist, "load_mnist", lambda root: digits)
    for _ in range(2):  # what was tested is not tested again
        assert main([*words, "--test-seeds", "2"]) == 0
        assert len(reads) == 3 * 2
    assert "irevrnn-u1: test_accuracy" in capsys.readouterr().out
    for entry in json.loads(result_file("mnist", "smoke").read_text())["methods"].values():
        test, best = entry["test"], entry["trials"][entry["best"]]
        assert [one["seed"] for one in test["runs"]] == [FIRST_SEED, FIRST_SEED + 1]
        settings = {key: test["config"][key] for key in best["settings"]}
        assert settings == best["settings"] and test["num_parameters"] == best["num_parameters"]
        assert [test["config"][key] for key in ("epochs", "epoch_steps")] == [
            best[key] for key in ("epochs", "epoch_steps")
        ]
        assert test["trial"] == entry["best"] and 0 <= test["test_accuracy"]["mean"] <= 1


def test_without_trials_there_is_nothing_to_test(capsys):
    words = ["mnist", "gru", "--profile", "smoke", "--test-seeds", "2"]
    assert main(words) == 1
    assert "search first" in capsys.readouterr().err
    run("mnist", ("lru",), 1, MINUTES, **SMALL)
    assert main(words) == 1
    assert "has no trial of gru that has ended: search first" in capsys.readouterr().err


@pytest.mark.parametrize("file", [*RECORDED.glob("*.json")], ids=lambda file: file.stem)
def test_recorded_results_go_on(file):
    """Their trials are not drawn again, and their settings are those of the networks tested."""
    done = json.loads(file.read_text())
    head = {key: done[key] for key in ("minutes", "threads")} | results._head(file.stem, "paper")
    head["parameters"] = done["parameters"]
    assert results._read(file, head, tuple(done["methods"])) == done
    for method, entry in done["methods"].items():
        settings = entry["trials"][entry["best"]]["settings"]
        wanted = configure(SEARCHES[file.stem], method, settings, "paper", test=True).identity()
        tested = {**wanted, **updated(entry["test"]["config"])}
        of_schedule = ("epochs", "epoch_steps", "seed", "seeds")
        assert all(tested[key] == wanted[key] for key in wanted if key not in of_schedule)


# --- the command line ---------------------------------------------------------------------------


def test_the_command_searches(capsys, monkeypatch):
    monkeypatch.setattr(one_trial, "timed", TIMED)
    words = "mnist gru lru --trials 1 --minutes 0.02 --profile smoke"
    assert main(words.split()) == 0
    assert "written to" in capsys.readouterr().out
    result = json.loads(result_file("mnist", "smoke").read_text())
    assert {name: len(trials) for name, trials in trials_of(result).items()} == {"gru": 1, "lru": 1}
