"""The experiments of the paper: each can be run, is resumed, and its result says what it was."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from experiments import catalogue as experiments
from experiments.__main__ import main
from experiments.catalogue import (
    EXPERIMENTS,
    SMALLER,
    Experiment,
    config_of,
    nearest_size,
    read_results,
    result_file,
    run,
)
from experiments.tasks.synthetic import AddingConfig
from experiments.train.config import ConfigError, updated
from experiments.train.model import count_parameters

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("repository", "digits")
every_experiment = pytest.mark.parametrize("name", EXPERIMENTS)


@pytest.fixture
def tiny(monkeypatch):
    """An experiment of a second in the paper's own profile."""
    fields = {"length": 10, "batches": 4, "held_out": 20, "batch_size": 8, "epochs": 2}
    table = {
        "tiny": Experiment("adding", "Adding", "IRevRNN", fields, seeds=2),
        "peer": Experiment(
            "adding", "Adding", "GRU", {**fields, "model": "gru", "num_layers": 1}, 1, "tiny"
        ),
    }
    monkeypatch.setattr(experiments, "EXPERIMENTS", table)
    monkeypatch.setattr(experiments, "CHECKPOINT_EVERY", 1)


# --- the table ----------------------------------------------------------------------------------


@every_experiment
def test_every_experiment_can_be_configured(name):
    config = config_of(name)  # which takes known fields alone
    assert config.seeds == EXPERIMENTS[name].seeds and config.test


def test_labels_are_unique_within_their_group():
    labels = [(one.group, one.label) for one in EXPERIMENTS.values()]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("name", [n for n, one in EXPERIMENTS.items() if one.like])
def test_no_other_size_has_as_many_parameters(name):
    ours, theirs = config_of(EXPERIMENTS[name].like), config_of(name)

    def count(config):
        return count_parameters(config.model.build(config.task(torch.device("cpu"))))

    wanted, size = count(ours), theirs.model.hidden_size
    distances = [abs(count(theirs.changed(hidden_size=size + off)) - wanted) for off in (0, -1, 1)]
    assert min(distances) == distances[0] < 0.05 * wanted


def test_the_nearest_size_is_found():
    config = AddingConfig.of(model="lstm")
    task = config.task(torch.device("cpu"))

    def sized(size):
        return config.changed(hidden_size=size)

    for size in (1, 2, 3, 17, 64):
        model = sized(size).model.build(task)
        for off in (-1, 0, 1):
            assert nearest_size(sized, task, count_parameters(model) + off) == size


@pytest.mark.parametrize(
    "file", sorted((ROOT / "paper/results/experiments").glob("*.json")), ids=lambda file: file.stem
)
def test_committed_results_are_of_the_table_as_it_is(file):
    result = json.loads(file.read_text())
    assert result["experiment"] == file.stem and result["profile"] == "paper"
    wanted = json.loads(json.dumps(config_of(file.stem).identity()))
    # Fields that did not exist yet had their defaults; some of them are gone.
    written = updated(result["config"])
    assert {k: written.get(k, v) for k, v in wanted.items()} == wanted


# --- running ------------------------------------------------------------------------------------


def kinds():
    """An experiment for each way of training, among those that differ in numbers alone."""

    def kind(experiment):
        fields = {**experiment.fields, **SMALLER[experiment.task]}
        words = {k: v for k, v in fields.items() if v is None or isinstance(v, str | bool)}
        return experiment.task, str(sorted(words.items()))

    small = {name: one for name, one in EXPERIMENTS.items() if one.task in SMALLER}
    return {kind(one): name for name, one in small.items()}.values()


@pytest.mark.slow
@pytest.mark.parametrize("name", kinds())
def test_every_experiment_runs_in_small(name):
    result = run(name, "smoke", progress=False, threads=1)
    assert result == json.loads(Path(f"build/smoke/results/experiments/{name}.json").read_text())
    assert result["profile"] == "smoke" and result["task"] in SMALLER


def test_a_result_says_what_was_run(tiny):
    result = run("tiny", progress=False, threads=1)
    assert read_results() == {"tiny": result}
    assert result["num_seeds"] == 2 and result["figure"] == "squared_error"
    assert (result["group"], result["label"]) == ("Adding", "IRevRNN")
    assert result["config"]["length"] == 10 and result["threads"] == 1
    assert result["versions"]["torch"] == torch.__version__ and "git_commit" in result
    for seconds in ("wall_seconds", "processor_seconds"):
        assert result[seconds] == sum(one[seconds] for one in result["runs"]) > 0
    for seed, one in enumerate(result["runs"]):
        assert one["seed"] == seed and len(one["history"]) == 2
        assert (
            one["history"][one["best_epoch"] - 1]["val_squared_error"] == one["val_squared_error"]
        )


def test_what_has_ended_is_not_run_again(tiny, monkeypatch):
    first = run("tiny", progress=False, threads=1)
    monkeypatch.setattr(
        "experiments.train.runs.train", lambda *a, **k: pytest.fail("it was run again")
    )
    again = run("tiny", progress=False, threads=1)
    assert again["runs"] == first["runs"]


def test_an_experiment_that_was_stopped_goes_on(tiny):
    stops = 0
    while (result := run("tiny", progress=False, threads=1, max_minutes=0)) is None:
        assert not result_file("tiny").exists()
        stops += 1
    assert stops == 2 * 2 * 4  # no time at all is one step
    Path("build/paper").rename("build/before")
    again = run("tiny", progress=False, threads=1)
    for stopped, straight in zip(result["runs"], again["runs"], strict=True):
        assert stopped["test_squared_error"] == straight["test_squared_error"]


def test_runs_of_another_configuration_are_not_taken(tiny, monkeypatch):
    run("tiny", progress=False, threads=1)
    table = dict(experiments.EXPERIMENTS)
    table["tiny"] = dataclasses.replace(table["tiny"], fields={**table["tiny"].fields, "lr": 0.5})
    monkeypatch.setattr(experiments, "EXPERIMENTS", table)
    with pytest.raises(ConfigError, match="lr is 0.5, but the run in .* has 0.004"):
        run("tiny", progress=False, threads=1)


# --- the command line ---------------------------------------------------------------------------


def test_the_command_runs_and_lists(tiny, capsys):
    assert main(["peer", "--threads", "1"]) == 0
    assert result_file("peer").is_file()
    capsys.readouterr()
    assert main(["--list"]) == 0
    tiny_line, peer_line = capsys.readouterr().out.splitlines()
    assert tiny_line.startswith("tiny: adding, length 10") and tiny_line.endswith("not yet run")
    assert "as many parameters as tiny" in peer_line and "test_squared_error" in peer_line


def test_the_command_stops_in_time(tiny, capsys):
    assert main(["tiny", "--threads", "1", "--max-minutes", "0"]) == 0
    assert "continues with the same command" in capsys.readouterr().out
    assert not result_file("tiny").exists()


def test_the_command_times_without_running(tiny, capsys):
    assert main(["tiny", "--time", "--threads", "1"]) == 0
    assert "s a step, 16 steps" in capsys.readouterr().out
    assert not Path("build/paper/experiments").exists()


def test_an_unknown_name_is_refused():
    with pytest.raises(ConfigError, match="there is no experiment 'unknown': choose from block"):
        config_of("unknown")
