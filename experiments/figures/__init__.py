# ruff: noqa: F401, I001
"""The figures: a function for each, which takes plain numbers and returns a Matplotlib figure.

These functions compute nothing, so a figure can be drawn again from the result files. A notebook
calls :func:`style` once, hands its figures to :func:`save` and its numbers to
:func:`write_result`.
"""

from experiments.figures.costs import (
    crossover, entropy, frontier, lengths, saved_bytes, speed,
)  # fmt: skip
from experiments.figures.data import mistakes, sequences, signals, skeletons
from experiments.figures.derivation import (
    accuracy, division, drift, gradient_errors, oscillators, resonance, saturation,
)  # fmt: skip
from experiments.figures.diagrams import reversal
from experiments.figures.moving import moving
from experiments.figures.output import save, write_result
from experiments.figures.recordings import evidence, long_signals, step_memory
from experiments.figures.selection import forgotten, turning
from experiments.figures.theme import STRATEGIES, style
from experiments.folders import folder, repository
from experiments.figures.training import (
    bits, comparison, confusion, expected_best, learning_curve, same_training, subjects,
)  # fmt: skip
