"""Windows that were taken for another movement, to be looked at."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.datasets.recordings import Recordings
from experiments.tasks.action import ActionConfig, make_parts


class Mistake(NamedTuple):
    """A window that was taken for another movement, and one of that movement by someone else.

    Attributes:
        window, example: the signals as they were measured, (frames, channels).
        true, guess: labels.
        subject, other: who moves in them.
    """

    window: np.ndarray
    example: np.ndarray
    true: int
    guess: int
    subject: int
    other: int


def find_mistakes(
    config: ActionConfig, watch: Recordings, runs: Sequence[dict[str, Any]], most: int = 3
) -> list[Mistake]:
    """Return some mistakes, no two of the same pair of movements.

    ``runs`` are the results of all folds of ``config``, in order.
    """
    found: dict[tuple[int, int], Mistake] = {}
    subjects, sides = watch.subjects, watch.columns["side"]
    for fold, run in enumerate(runs):
        sources = make_parts(dataclasses.replace(config, fold=fold), watch).test.sources
        pairs = zip(run["test_labels"], run["test_predictions"], strict=True)
        for sequence, (true, guess) in enumerate(pairs):
            if true == guess or (true, guess) in found or len(found) == most:
                continue
            source = sources[sequence]
            start = (sequence - int(np.searchsorted(sources, source))) * config.hop
            others = (watch.labels == guess) & (subjects != subjects[source])
            example = np.flatnonzero(others & (sides == sides[source]))[0]
            found[true, guess] = Mistake(
                watch[source][start : start + config.frames], watch[example][: config.frames],
                true, guess, int(subjects[source]), int(subjects[example]),
            )  # fmt: skip
    return list(found.values())
