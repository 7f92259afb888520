"""The space of a search: the settings of each method, and the tasks."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna import Trial, create_study
from optuna.logging import WARNING, set_verbosity
from optuna.samplers import RandomSampler

set_verbosity(WARNING)  # a study is made for each trial


@dataclass(frozen=True)
class LogUniform:
    """Numbers from ``lowest`` to ``highest``, log-uniform.

    ``of_length`` counts both in lengths of the sequences; no number is below ``least``.
    """

    lowest: float
    highest: float
    of_length: bool = False
    least: float = 0.0

    def suggest(self, trial: Trial, key: str, length: int) -> float:
        """Draw a number."""
        scale = length if self.of_length else 1
        number = trial.suggest_float(key, self.lowest * scale, self.highest * scale, log=True)
        return max(self.least, number)


@dataclass(frozen=True)
class Choice:
    """One of ``values``, all equally likely; a range among them is drawn from in turn."""

    values: tuple[Any, ...]

    def suggest(self, trial: Trial, key: str, length: int) -> Any:
        """Draw a value."""
        value = self.values[trial.suggest_int(f"index of {key}", 0, len(self.values) - 1)]
        return value.suggest(trial, key, length) if isinstance(value, LogUniform) else value


Range = LogUniform | Choice

#: Longest memories, periods and dependencies: every method is told the length of the sequences.
_LONGEST = LogUniform(0.25, 4.0, of_length=True, least=6.0)
_CHRONO = Choice((None, _LONGEST))
_RECURRENT_RATE = LogUniform(0.03, 1.0)
_SHORTEST_PERIOD = LogUniform(2.1, 60.0)
#: Units for each feature between gated blocks. ``width`` follows from the number of parameters.
_UNITS = Choice((0.5, 1.0, 2.0))

#: The settings of every method.
COMMON: dict[str, Range] = {
    "lr": LogUniform(2e-4, 2e-2),
    "weight_decay": LogUniform(1e-3, 0.3),
    "num_layers": Choice((1, 2, 3, 4)),
    "read": Choice(("mean", "last")),
}


@dataclass(frozen=True)
class Method:
    """A network: its name, fixed fields, and ranges of its own, which may replace common ones."""

    label: str
    fields: Mapping[str, Any]
    ranges: Mapping[str, Range]


_OURS = {"model": "block", "memory": "recompute"}
_OSCILLATORS: dict[str, Range] = {
    "units": _UNITS, "longest_memory": _LONGEST, "longest_period": _LONGEST,
    "shortest_period": _SHORTEST_PERIOD, "recurrent_lr_scale": _RECURRENT_RATE,
}  # fmt: skip
_REMEMBERING: dict[str, Range] = {
    "units": _UNITS, "longest_memory": _LONGEST, "recurrent_lr_scale": _RECURRENT_RATE,
    "shortest_memory": LogUniform(0.003, 0.1, of_length=True),
}  # fmt: skip
#: Every method. Ours takes the fastest strategy: the others differ from it by rounding alone.
METHODS: dict[str, Method] = {
    "irevrnn": Method("gated blocks (ours)", _OURS, _OSCILLATORS),
    "irevrnn-u1": Method("gated blocks (ours), u = 1", _OURS | {"forgets": False}, _OSCILLATORS),
    "lstm": Method("LSTM", {"model": "lstm"}, {"chrono": _CHRONO}),
    "gru": Method("GRU", {"model": "gru"}, {"chrono": _CHRONO}),
    "indrnn": Method("IndRNN", {"model": "indrnn"}, {
        "longest_memory": _LONGEST, "norm": Choice(("batch", "layer")),
        "recurrent_lr_scale": _RECURRENT_RATE,
    }),
    "lru": Method("LRU", {"model": "lru"}, _REMEMBERING | {"shortest_period": _SHORTEST_PERIOD}),
    "rglru": Method("RG-LRU", {"model": "rglru"}, _REMEMBERING),
    "s6": Method("S6, diagonal", {"model": "s6"}, _REMEMBERING),
    # Its oscillators start as the authors' do.
    "linoss": Method("LinOSS", {"model": "linoss"}, {
        "units": _UNITS, "recurrent_lr_scale": _RECURRENT_RATE,
    }),
    "mingru": Method("minGRU", {"model": "mingru"}, {"units": _UNITS, "chrono": _CHRONO}),
    "revgru": Method("reversible GRU", {"model": "revgru"}, {
        "most_bits": Choice((None, 1, 2, 3, 5)), "chrono": _CHRONO,
    }),
    # The ranges hold the authors' settings, and stable ones alone. The authors stack no layers.
    "cornn": Method("coRNN", {"model": "cornn"}, {
        "num_layers": Choice((1, 2)), "time_step": LogUniform(0.01, 0.1),
        "stiffness": LogUniform(0.1, 100.0), "damping": LogUniform(1.0, 15.0),
    }),
}  # fmt: skip


@dataclass(frozen=True)
class Search:
    """A task with the fields in which it differs from its defaults, and a size of networks."""

    task: str
    fields: Mapping[str, Any]
    parameters: int
    #: Ranges that replace those of a method here, or are new, by its name.
    ranges: Mapping[str, Mapping[str, Range]] = field(default_factory=dict)

    def ranges_of(self, method: str) -> dict[str, Range]:
        """Return what is drawn for a method, by the name of the setting."""
        return {**COMMON, **METHODS[method].ranges, **self.ranges.get(method, {})}


# Over thousands of steps, a change of a recurrent weight shifts a phase thousands of times as much,
# so recurrent weights may have smaller learning rates; to tell apart ten symbols in a row, units
# need short periods.
_SLOW_RATE = LogUniform(1e-3, 1.0)
_SLOW: dict[str, dict[str, Range]] = {
    **dict.fromkeys(
        ("indrnn", "lru", "rglru", "s6", "linoss"), {"recurrent_lr_scale": _SLOW_RATE}
    ),
    **dict.fromkeys(("irevrnn", "irevrnn-u1"), {
        "recurrent_lr_scale": _SLOW_RATE, "coupling_lr_scale": LogUniform(1e-4, 0.1),
        "longest_period": LogUniform(0.002, 4.0, of_length=True),
    }),
}  # fmt: skip
# A sum needs states that do not oscillate, and an embedding that is zero where nothing is marked.
# The embedding may be sparse before all gated blocks.
_SPARSE = Choice((None, 1.0))
_ADDING: dict[str, dict[str, Range]] = {
    "indrnn": _SLOW["indrnn"],
    "lru": _SLOW["lru"] | {
        "sparsity": _SPARSE, "shortest_period": LogUniform(4e-4, 4.0, of_length=True, least=2.0),
    },
    **dict.fromkeys(("rglru", "s6", "linoss"), _SLOW["linoss"] | {"sparsity": _SPARSE}),
    "mingru": {"sparsity": _SPARSE},
    **dict.fromkeys(("irevrnn", "irevrnn-u1"), _SLOW["irevrnn"] | {
        "sparsity": _SPARSE, "num_couplings": Choice((0, 1)),
    }),
}  # fmt: skip
_SYNTHETIC = {"batch_size": 16, "held_out": 200}
# Permuted pixels have no slow parts: all units may turn fast, as those of the others may.
_FAST: dict[str, dict[str, Range]] = dict.fromkeys(
    ("irevrnn", "irevrnn-u1"), {"longest_period": LogUniform(0.05, 4.0, of_length=True)}
)
_SMALL_DIGITS = {"downsample": 2, "batch_size": 100}

#: Every search, by the name of its result file.
SEARCHES: dict[str, Search] = {
    "mnist": Search("mnist", _SMALL_DIGITS, 30_000),
    "permuted": Search("mnist", _SMALL_DIGITS | {"permuted": True}, 30_000, _FAST),
    "adding": Search("adding", _SYNTHETIC, 10_000, _ADDING),
    "copy": Search("copy", _SYNTHETIC, 10_000, _SLOW),
}


def draw(search: Search, name: str, trial: int, length: int) -> dict[str, Any]:
    """Return the settings of a method's trial, by name, for sequences of ``length`` steps.

    Trial i draws the common settings of all methods by the same random numbers, so that no method
    has more luck with them.
    """
    ranges, seeds = search.ranges_of(name), (trial, zlib.crc32(f"{name} {trial}".encode()))
    common, own = (create_study(sampler=RandomSampler(seed)).ask() for seed in seeds)
    drawn = {key: one.suggest(common, key, length) for key, one in COMMON.items()}
    for key, one in ranges.items():
        if one is not COMMON.get(key):
            drawn[key] = one.suggest(own, key, length)
    if "longest_period" in drawn:  # of short sequences, it may be the shorter one, or too short
        drawn["longest_period"] = max(drawn["longest_period"], _SHORTEST_PERIOD.lowest)
        drawn["shortest_period"] = min(drawn["shortest_period"], drawn["longest_period"])
    if drawn.get("num_couplings") == 0:  # without couplings nothing oscillates
        drawn["longest_period"] = None
    return drawn
