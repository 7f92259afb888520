"""Command lines that cannot be are refused in one line, configurations with a name."""

from functools import partial

import pytest

from experiments import __main__ as experiments
from experiments import evaluate, reproduce
from experiments.bench import __main__ as bench
from experiments.search import __main__ as search
from experiments.tasks import TASKS
from experiments.train import __main__ as train
from experiments.train.config import ConfigError


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
    ("network", "option"),
    [
        ("lstm", "num_couplings"), ("gru", "residual"), ("lru", "bits_penalty"),
        ("block", "forget_bias"), ("irevrnn", "width"),
    ],
)  # fmt: skip
def test_options_of_another_network_are_refused(network, option, capsys):
    word = f"--{option.replace('_', '-')}"
    with pytest.raises(SystemExit) as end:
        train.main(["mnist", network, word, "1"])
    assert end.value.code == 2 and word in capsys.readouterr().err
    with pytest.raises(ConfigError, match=f"{option} is no option of .* the network {network}"):
        TASKS["mnist"].of(model=network, **{option: 1})


@pytest.mark.parametrize("words", [["mnist"], ["mnist", "rnn"]])
def test_a_network_must_be_named(words, capsys):
    with pytest.raises(SystemExit) as end:
        train.main(words)
    assert end.value.code == 2 and "irevrnn, block, lstm, gru" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="model must be one of irevrnn, block, .*; got 'rnn'"):
        TASKS["mnist"].of(model="rnn")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("unknown", "there is no unknown: choose from selective-copy"),
        ("selective-copy lru gru", "there is no gru: choose from fixed-u1, "),
        ("selective-copy --trials 0", "trials must be above 0; got 0"),
        ("selective-copy --profile tiny", "profile must be one of smoke, quick, paper; got tiny"),
    ],
)
def test_a_search_that_cannot_be_is_refused(words, message, capsys):
    refused(partial(search.main, words.split()), message, capsys)


@pytest.mark.parametrize(
    ("words", "command"),
    [("signals block", "cinc2017 --root {}"), ("action lstm --data-set msr", "msr RAW {}/msr")],
)
def test_data_that_is_not_there_is_named(words, command, tmp_path, capsys):
    assert train.main([*words.split(), f"--data={tmp_path}", f"--out={tmp_path}"]) == 1
    message = f"create it with python -m experiments.datasets {command.format(tmp_path)}\n"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("mnist", {"model": "mingru", "longest_memory": 1.0}, "longest_memory must be at least 2"),
        ("mnist", {"model": "lru", "sparsity": -0.1}, "sparsity must be at least 0; got -0.1"),
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
        ("adding", {"train_subset": 10}, "train_subset is no option of AddingConfig"),
        ("adding", {"label_smoothing": 0.1}, "label_smoothing must be 0 .*got 0.1"),
    ],
)
def test_options_that_cannot_be_are_named(task, options, message):
    with pytest.raises(ConfigError, match=message):
        TASKS[task].of(**options)
