"""Collect what was trained in ``paper/results/experiments.json``, and draw it.

The file has a line for each experiment, and a hash of every result that it comes from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from experiments import figures
from experiments.catalogue import read_results
from experiments.provenance import provenance

#: What the names of experiments begin with whose bits are compared.
RECURRENCES = {
    "selective copying": {
        "angles by input": ["select", "select-angles"],
        "decays learnt, or u = 1": ["select-fixed", "select-gate", "select-fixed-forgets*"],
        "decays by input": ["select-decays*"],
        "angles and decays by input": ["select-both*"],
    },
    "digits of 14 by 14 pixels": {
        "angles by input": ["bits-angles"],
        "decays learnt, or u = 1": ["bits-0", "bits-memory-*", "bits-penalty-*"],
        "decays by input": ["bits-decays*"],
    },
}
Results = Mapping[str, Mapping[str, Any]]


def stale() -> bool:
    """Return whether a result or a figure is not the one that the file was written with."""
    file = figures.folder("paper") / "results" / "experiments.json"
    if not file.is_file():
        return True
    recorded = json.loads(file.read_text(encoding="utf-8"))
    drawn = {name: file.parents[1] / "figures" / f"{name}.svg" for name in recorded["figures"]}
    return recorded["made_from"] != _made_from() or recorded["figures"] != _digests(drawn)


def write() -> None:
    """Draw the figures and write the file; the code must have been committed."""
    figures.style()
    results = read_results()
    _compare(results)
    panels = {
        task: {label: _bits(results, names) for label, names in kinds.items()}
        for task, kinds in RECURRENCES.items()
    }
    figures.save(figures.bits(panels), "bits", "paper")
    rows = [_row(name, result) for name, result in results.items()]
    content = {"environment": provenance(), "rows": rows, "made_from": _made_from()}
    figures.write_result("experiments", content, "paper")


def _made_from() -> dict[str, str]:
    folder = figures.folder("paper") / "results"
    files = {path.stem: path for path in sorted(folder.glob("experiments/*.json"))}
    return _digests(files)


def _digests(files: Mapping[str, Path]) -> dict[str, str]:
    there = {name: file.read_bytes() for name, file in files.items() if file.is_file()}
    return {name: hashlib.sha256(content).hexdigest() for name, content in there.items()}


def _row(name: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the paper's table says of an experiment."""
    figure = result[f"test_{result['figure']}"]
    return {
        "name": name,
        **{key: result[key] for key in ("task", "group", "label", "figure", "num_parameters")},
        **{key: figure[key] for key in ("mean", "lowest", "highest")},
        "epochs": result["config"]["epochs"],
        "runs": result["num_runs"],
        "steps": result["data"]["sequence_length"],
        "chance": result["data"].get("chance"),
        "seconds": (result["processor_seconds"] or result["wall_seconds"]) / result["num_runs"],
    }


def _compare(results: Results) -> None:
    groups: dict[str, dict[str, list[float]]] = {}
    for result in results.values():
        elsewhere = result["task"] in ("copy", "counting") or result["group"] == "Bits"
        if "test_accuracy" in result and not elsewhere:
            accuracies = [run["test_accuracy"] for run in result["runs"]]
            groups.setdefault(result["group"], {})[result["label"]] = accuracies
    several = {name: lines for name, lines in groups.items() if len(lines) > 2}
    figures.save(figures.comparison(several), "comparison", "paper")


def _bits(results: Results, patterns: Sequence[str]) -> list[tuple[float, float]]:
    """Return the bits and the accuracy of each run of experiments with such names."""
    found = [name for name in results if any(fnmatch(name, pattern) for pattern in patterns)]
    runs = [run for name in found for run in results[name]["runs"]]
    return [(run["forgotten_bits"], run["test_accuracy"]) for run in runs]
