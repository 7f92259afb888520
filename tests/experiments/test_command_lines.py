"""Command lines that cannot be are refused in one line, configurations with a name."""

import math
from functools import partial

import pytest

from experiments import __main__ as experiments
from experiments import evaluate, reproduce
from experiments.bench import __main__ as bench
from experiments.forecast import __main__ as forecast
from experiments.search import __main__ as search
from experiments.tasks import TASKS
from experiments.train import __main__ as train
from experiments.train.config import OF_BLOCKS, ConfigError


def refused(command, message, capsys):
    """Check that a command ends at once, and says why in one line."""
    with pytest.raises(SystemExit) as end:
        command()
    shown = capsys.readouterr().err
    assert end.value.code == 2 and message in shown and len(shown.splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (partial(bench.main, threads=0), "threads must be above 0; got 0"),
        (partial(bench.main, repetitions=-1), "repetitions must be above 0; got -1"),
        (partial(forecast.main, threads=0), "threads must be above 0; got 0"),
        (partial(forecast.main, minutes=-1.0), "minutes must be above 0; got -1.0"),
        (partial(forecast.main, minutes=math.nan), "minutes must be above 0; got nan"),
        (partial(forecast.main, steps=0), "steps must be above 0; got 0"),
        (partial(evaluate.main, ["--threads", "0"]), "threads must be above 0; got 0"),
        (partial(reproduce.main, ["nosuch.ipynb"]), "there is no notebook nosuch.ipynb"),
        (partial(reproduce.main, ["--profile", "big", "a"]), "of smoke, quick, paper; got 'big'"),
        (partial(experiments.main, ["unknown"]), "there is no experiment unknown: choose from "),
        (partial(experiments.main, []), "name the experiments to run"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_number_or_file_that_cannot_be_is_refused(command, message, capsys):
    refused(command, message, capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model lstm --block", "block=True needs model='irevrnn'; got model='lstm'"),
        ("--block --residual", "residual=True needs block=False"),
        (
            "--model lstm --num-couplings 7",
            "num_couplings=7 means nothing with model='lstm', block=False",
        ),
        ("--model gru --residual", "residual=True means nothing with model='gru'"),
        ("--model lru --bits-penalty 3", "bits_penalty=3.0 means nothing with model='lru'"),
        ("--model lstm --memory reversible", "memory='reversible' means nothing with model='lstm'"),
        ("--model lstm --recurrent-lr-scale 0.5", "recurrent_lr_scale=0.5 means nothing"),
        ("--chrono 9", "chrono=9.0 means nothing with model='irevrnn', block=False"),
        ("--width 9", "width=9 means nothing with model='irevrnn', block=False"),
    ],
)
def test_options_of_another_network_are_refused(words, message, capsys):
    refused(partial(train.main, ["mnist", *words.split()]), message, capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("unknown", "there is no unknown: choose from adding, "),
        ("mnist gru rnn", "there is no rnn: choose from cornn, "),
        ("mnist --trials 0", "trials must be above 0; got 0"),
        ("mnist --minutes -1", "minutes must be above 0; got -1"),
        ("mnist --test-seeds 0", "test_seeds must be above 0; got 0"),
        ("mnist --profile tiny", "profile must be one of smoke, quick, paper; got tiny"),
    ],
)
def test_a_search_that_cannot_be_is_refused(words, message, capsys):
    refused(partial(search.main, words.split()), message, capsys)


@pytest.mark.parametrize(
    ("words", "command"),
    [("signals", "cinc2017 --root {}"), ("action --data-set msr", "msr RAW {}/msr")],
)
def test_data_that_is_not_there_is_named(words, command, tmp_path, capsys):
    assert train.main([*words.split(), f"--data={tmp_path}", f"--out={tmp_path}"]) == 1
    message = f"create it with python -m experiments.datasets {command.format(tmp_path)}\n"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("mnist", {"memory": "checkpoint"}, "norm must be layer or none .*'checkpoint'.*'batch'"),
        ("mnist", {"memory": "auto"}, "memory='auto' needs memory_budget"),
        ("mnist", {"memory_budget": "1GB"}, "memory_budget goes with .*got memory='recompute'"),
        ("mnist", {"memory": "auto", "memory_budget": "1 kilo"}, "memory_budget must .*'1 kilo'"),
        ("mnist", {"model": "lru", "shortest_memory": 2000.0}, "shortest_memory must be above 0"),
        ("mnist", {"model": "lru", "shortest_period": 0.5}, "shortest_period must be at least 1"),
        ("mnist", {"model": "indrnn", "longest_memory": 0.5}, "longest_memory must be finite"),
        ("mnist", {"model": "lstm", "chrono": 1.0}, "chrono must be at least 2; got 1.0"),
        ("mnist", {"model": "cornn", "time_step": -0.1}, "time_step must be at least 0; got -0.1"),
        ("signals", {"data_set": "folder"}, "choose either a folder or a data_set other than"),
        ("signals", {"data_set": "fsdd", "folder": "x"}, "choose either a folder or a data_set"),
        ("signals", {"split": "speaker"}, "split must be one of folds for cinc2017; got 'speaker'"),
        ("signals", {"data_set": "fsdd", "split": "folds"}, "split must be one of official, "),
        ("signals", {"flip": 2.0}, "flip must be at most 1; got 2.0"),
        ("signals", {"folds": 1}, "folds must be at least 2; got 1"),
        ("sessions", {"data_set": "utkinect"}, "data_set must be 'watch' for sessions; got"),
        ("sessions", {"sampling": "whole"}, "sampling must be 'window' for sessions; got 'whole'"),
        ("sessions", {"train_subset": 3}, "train_subset must be None for sessions; got 3"),
        ("adding", {"length": 1}, "length must be at least 2; got 1"),
        ("adding", {"train_subset": 10}, "train_subset must be None .*got 10"),
        ("adding", {"label_smoothing": 0.1}, "label_smoothing must be 0 .*got 0.1"),
    ],
)
def test_options_that_cannot_be_are_named(task, options, message):
    with pytest.raises(ConfigError, match=message):
        TASKS[task].of(**options)


@pytest.mark.parametrize(
    ("name", "value"), [*zip(OF_BLOCKS, (False, False, "tanh", 0.1, 5), strict=True)]
)
def test_what_blocks_alone_have_needs_blocks(name, value):
    with pytest.raises(ConfigError, match=f"{name}={value!r} needs block=True with .*; got"):
        TASKS["mnist"].of(**{name: value})
