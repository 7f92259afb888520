"""A random forest on heart rates, the usual method: ``python -m experiments.signals.forest``.

It is trained and tested in the same folds as the networks.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier

from experiments.command_line import report_errors
from experiments.datasets.recordings import Recordings
from experiments.files import write_text
from experiments.provenance import provenance
from experiments.signals.bootstrap import interval
from experiments.signals.folds import make_folds
from experiments.signals.heart_rate import describe
from experiments.tasks.signals import SignalsConfig
from experiments.train.checkpoints import make_folder
from experiments.train.evaluate import confusion_matrix

PROGRAM = "python -m experiments.signals.forest"


def train_forests(config: SignalsConfig, trees: int = 300) -> dict[str, Any]:
    """Train and test a random forest on each fold of an ECG data set; return the figures.

    Training takes what networks take for validation, too: there is nothing to choose by it.
    """
    recordings, objective = config.load(), config.objective()
    features = _describe_all(recordings)
    folds = make_folds(recordings, str(config.split), config.folds)
    predictions = np.full(len(recordings), -1)
    scores = []
    for fold in folds:
        chosen = np.concatenate([fold.train, fold.val])
        forest = RandomForestClassifier(
            trees, class_weight="balanced_subsample", random_state=config.seed
        )
        forest.fit(features[chosen], recordings.labels[chosen])
        predictions[fold.test] = forest.predict(features[fold.test])
        scores.append(objective.score(predictions[fold.test], recordings.labels[fold.test]))
    tested = np.flatnonzero(predictions >= 0)
    predicted, labels, figure = predictions[tested], recordings.labels[tested], objective.figure
    return {
        "data_set": recordings.about.data_set,
        "source": recordings.about.source,
        "trees": trees,
        "seed": config.seed,
        f"test_{figure}": statistics.fmean(scores),
        f"test_{figure}s": scores,
        f"test_{figure}_together": objective.score(predicted, labels),
        f"test_{figure}_interval": interval(objective, predicted, labels),
        "test_accuracy": float((predicted == labels).mean()),
        "confusion_matrix": confusion_matrix(
            torch.from_numpy(predicted),
            torch.from_numpy(labels),
            len(recordings.about.class_names),
        ),
    }


def main(argv: list[str] | None = None) -> int:
    """Train, test and write ``results.json``; return the exit status."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the data sets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("build/forest"), help="folder to write")
    options = parser.parse_args(argv)
    config = SignalsConfig.of(data_set="cinc2017", data=options.data, seed=options.seed)
    return report_errors(PROGRAM, lambda: _write(config, options.out))


def _write(config: SignalsConfig, out: Path) -> None:
    make_folder(out)
    results = train_forests(config) | provenance()
    write_text(out / "results.json", json.dumps(results, indent=1) + "\n")
    figure = f"test_{config.objective().figure}"
    print(f"{results['data_set']}: {figure} {results[figure]:.4f}; {out / 'results.json'}")


def _describe_all(recordings: Recordings) -> np.ndarray:
    rate = recordings.about.frame_rate
    one_lead = (recordings[index][:, 0].astype(np.float64) for index in range(len(recordings)))
    return np.stack([describe(ecg, rate) for ecg in one_lead])


if __name__ == "__main__":
    sys.exit(main())
