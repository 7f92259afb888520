"""Command lines that cannot be are refused in one line."""

import math
from functools import partial

import pytest

from experiments import evaluate, reproduce
from experiments.bench import __main__ as bench
from experiments.forecast import __main__ as forecast
from experiments.search import __main__ as search
from experiments.train import __main__ as train


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
        (
            "--model lstm --recurrent-lr-scale 0.5",
            "recurrent_lr_scale=0.5 means nothing",
        ),
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
