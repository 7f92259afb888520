"""Command lines: a number or a file that cannot be is refused in one line."""

import math
from functools import partial

import pytest

from experiments import evaluate, reproduce
from experiments.bench import __main__ as bench
from experiments.forecast import __main__ as forecast


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (partial(bench.main, threads=0), "threads must be at least 1; got 0"),
        (partial(bench.main, repetitions=-1), "repetitions must be at least 1; got -1"),
        (partial(forecast.main, threads=0), "threads must be above 0; got 0"),
        (partial(forecast.main, minutes=-1.0), "minutes must be above 0; got -1.0"),
        (partial(forecast.main, minutes=math.nan), "minutes must be above 0; got nan"),
        (partial(forecast.main, steps=0), "steps must be above 0; got 0"),
        (partial(evaluate.main, ["--threads", "0"]), "threads must be above 0; got 0"),
        (partial(reproduce.main, ["nosuch.ipynb"]), "there is no notebook nosuch.ipynb"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_is_refused_in_a_line(command, message, capsys):
    with pytest.raises(SystemExit) as end:
        command()
    shown = capsys.readouterr().err
    assert end.value.code == 2 and message in shown and len(shown.splitlines()) == 1
