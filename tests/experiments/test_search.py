"""The search of settings: the same for every method, resumed, and blind to the test data."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from experiments.provenance import UncommittedChangesError
from experiments.search import __main__ as search
from experiments.search.__main__ import Command, main, run
from experiments.search.best import curves, table
from experiments.search.space import METHODS, SEARCHES, configure, draw, settings_of
from experiments.train import loop
from experiments.train.config import ConfigError
from experiments.train.model import count_parameters

FILE = Path("build/smoke/results/search/selective-copy.json")


@pytest.fixture(autouse=True)
def elsewhere(repository, monkeypatch):
    """A repository of its own, whose test part cannot be read."""
    monkeypatch.setattr(loop, "_describe_test", lambda *_: pytest.fail("the test data was read"))
    small = dataclasses.replace(SEARCHES["selective-copy"], parameters=2000)
    monkeypatch.setitem(SEARCHES, "selective-copy", small)


def command(*methods, trials=2):
    return Command("selective-copy", methods, trials=trials, profile="smoke")


@pytest.fixture
def trained(monkeypatch):
    """No training: the list of configurations, with rising figures, or the error to raise."""
    done = []

    def train(config, progress):
        done.append(config)
        if len(done) == 2:
            raise FloatingPointError("the training loss is nan")
        times = dict.fromkeys(("processor_seconds", "wall_seconds"), 60.0)
        return {"val_accuracy": len(done) / 10, "history": [{"step": 7}], "num_parameters": 400,
                "git_commit": "0123", **times}  # fmt: skip

    monkeypatch.setattr(search, "train", train)
    return done


# --- the space ----------------------------------------------------------------------------------


def test_a_method_takes_what_it_has_of_the_same_numbers():
    of = SEARCHES["selective-copy"]
    facts = configure(of, "lru", {}, "paper").task(torch.device("cpu")).facts
    for trial in range(6):
        drawn = draw(trial, facts["sequence_length"])
        assert drawn == draw(trial, facts["sequence_length"])
        sized = {"units", "width", "hidden_size"}
        for method in METHODS:
            settings = settings_of(of, method, trial, "paper")
            assert all(settings[key] == drawn[key] for key in settings.keys() - sized)
            assert {"lr", "weight_decay", "num_layers", *sized} - {"units"} <= settings.keys()
    assert len({draw(trial, 100)["lr"] for trial in range(50)}) == 50


@pytest.mark.parametrize("method", METHODS)
def test_networks_have_about_as_many_parameters_and_as_many_updates(method):
    of, steps = dataclasses.replace(SEARCHES["selective-copy"], parameters=40_000), set()
    for trial in range(4):
        config = configure(of, method, settings_of(of, method, trial, "paper"), "paper")
        task = config.task(torch.device("cpu"))
        count = count_parameters(config.model.build(task))
        assert count == pytest.approx(of.parameters, rel=0.1)
        assert not config.test and config.keep == "last"
        steps.add(config.epochs * task.steps_per_epoch)
    assert steps == {1000}


# --- the search ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_method_trains(capsys):
    assert main(["selective-copy", "--trials", "1", "--profile", "smoke"]) == 0
    done = json.loads(FILE.read_text())
    assert list(done["methods"]) == list(METHODS)
    for [trial] in done["methods"].values():
        assert 0 <= trial["val_accuracy"] <= 1 and trial["updates"] > 0 == trial["trial"]
        assert trial["processor_seconds"] > 0 and trial["git_commit"]
    out = capsys.readouterr().out
    assert all(f"| {label} |" in out for label, _ in METHODS.values())
    assert Path("build/smoke/figures/search_selective-copy.svg").is_file()


def test_what_is_done_is_not_done_again(trained):
    first = run(command("lru", "mingru"))
    assert json.loads(FILE.read_text()) == json.loads(json.dumps(first))
    run(command("lru", "mingru"))
    assert [config.model.name for config in trained] == 2 * ["lru", "mingru"]
    more = run(command("mingru", "s6", trials=3))
    assert [config.model.name for config in trained[4:]] == ["s6", "s6", "mingru", "s6"]
    assert more["methods"]["lru"] == first["methods"]["lru"]


def test_a_trial_that_failed_counts_as_the_worst(trained):
    done = run(command("lru", "mingru"))
    lru, mingru = ([trial.get("val_accuracy") for trial in done["methods"][x]] for x in
                   ("lru", "mingru"))  # fmt: skip
    assert (lru, mingru) == ([0.1, 0.3], [None, 0.4])
    assert done["methods"]["mingru"][0]["error"] == "the training loss is nan"
    found = curves(done)
    # The mean of two; then the better one in three of four pairs.
    assert found["lru"] == pytest.approx([0.2, 0.25])
    assert found["mingru"] == pytest.approx([0.25, 0.325])
    assert "\n| minGRU | 25.00 % | 32.50 % | 32.50 % | 40.00 % | 1 |" in str(table(done))


def test_the_last_bits_of_a_sum_do_not_reach_the_table():
    ends = [0.664049999999999, 0.66405], [0.66405, 0.664050000000001]
    found = [curves({"methods": {"lru": [{"val_accuracy": x} for x in end]}}) for end in ends]
    # Half of the last place that is shown, where one bit decides what a table says.
    assert found[0]["lru"][0] == found[1]["lru"][0] == 0.66405


def test_trials_of_another_search_are_not_mixed(trained, monkeypatch):
    run(command("lru"))
    monkeypatch.setattr(search, "provenance", lambda: {"cpu": "another", "git_commit": None})
    with pytest.raises(ConfigError, match="cpu is another, but the trials in .* had "):
        run(command("lru", trials=3))


def test_a_result_for_the_paper_needs_committed_code(monkeypatch):
    def refuse(folder):
        assert folder == Path.cwd() / "paper"
        raise UncommittedChangesError("commit first")

    monkeypatch.setattr(search, "require_clean", refuse)
    with pytest.raises(UncommittedChangesError):
        run(Command("selective-copy"))
