"""Which code made a result: a hash for each part of the code.

A result file records the hashes of all parts; ``paper/build.py`` compares those that the result
depends on with the code as it is. Comments, docstrings and blank lines of Python do not count, nor
does what a notebook says around its code.

This file needs nothing beside Python, so that the paper's build can load it by itself.
"""

from __future__ import annotations

import hashlib
import io
import json
import tokenize
from collections.abc import Mapping
from functools import cache
from pathlib import Path

#: The folder that the package lies in: the repository, unless the package is installed elsewhere.
ROOT = Path(__file__).resolve().parents[1]

#: The parts, and the files of each as patterns below :data:`ROOT`.
PARTS = {
    "cell": ("irevrnn/activations.py", "irevrnn/strategies/fixed_point.py", "irevrnn/reference.py"),
    "compiler": ("irevrnn/jit/compiler.py",),
    "kernels": (
        "irevrnn/csrc/*.h", "irevrnn/csrc/*.cpp", "irevrnn/backend.py", "irevrnn/strategies/fixed_scan.py",
        "irevrnn/functional.py", "irevrnn/ops.py",
    ),
    "cuda": (
        "irevrnn/cuda/*.cpp", "irevrnn/cuda/*.cu", "irevrnn/cuda/*.cuh", "irevrnn/cuda/*.h",
        "irevrnn/cuda/*.py",
    ),
    "layer": (
        "irevrnn/cell.py", "irevrnn/strategies/chunkwise.py", "irevrnn/strategies/compiling.py", "irevrnn/allocator.py",
        "irevrnn/sequences.py", "irevrnn/strategies/rules.py", "irevrnn/strategies/first_order.py", "irevrnn/packing.py",
        "irevrnn/projection.py", "irevrnn/rnn.py", "irevrnn/strategies/traces.py", "irevrnn/strategies/layerwise.py",
    ),
    "training": (
        "experiments/train/task.py", "experiments/train/config.py", "experiments/train/distributed.py", "experiments/models.py",
        "experiments/train/objectives.py", "experiments/peers.py", "experiments/process.py", "experiments/train/summary.py",
        "experiments/tasks/__init__.py", "experiments/train/loop.py",
    ),
    "synthetic": ("experiments/tasks/synthetic.py",),
    "action": ("experiments/action/*.py", "experiments/datasets/recordings.py"),
    "datasets/kinect": ("experiments/datasets/kinect.py",),
    "datasets/mnist": ("experiments/datasets/mnist.py",),
    "datasets/ntu": (
        "experiments/datasets/ntu/*.cpp", "experiments/datasets/ntu/*.py", "experiments/datasets/ntu/*.txt",
        "experiments/datasets/recordings.py",
    ),
    "datasets/watch": ("experiments/datasets/watch.py",),
    "measuring": ("experiments/bench/measure.py", "experiments/process.py"),
    "benchmark": (
        "experiments/bench/benchmark.py", "experiments/bench/gpu_benchmark.py", "experiments/bench/rates.py",
        "experiments/bench/recurrences.py", "experiments/bench/roofline.py", "experiments/bench/scan_benchmark.py",
        "experiments/bench/stacks.py", "experiments/bench/traffic.py",
    ),
    "notebooks/01": ("notebooks/01_*.ipynb",),
    "notebooks/02": ("notebooks/02_*.ipynb",),
    "notebooks/03": ("notebooks/03_*.ipynb",),
    "notebooks/04": ("notebooks/04_*.ipynb",),
    "notebooks/05": ("notebooks/05_*.ipynb",),
}  # fmt: skip

#: {part: {name of a file: its text}}
Texts = dict[str, dict[str, str]]


def read(root: Path = ROOT) -> Texts:
    """Read the files of every part, as they are now.

    Args:
        root: the folder that the patterns of :data:`PARTS` start from.

    Returns:
        For each part the text of its files, sorted by name.
    """
    return {
        part: {
            path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
            for path in sorted({path for pattern in patterns for path in root.glob(pattern)})
        }
        for part, patterns in PARTS.items()
    }


def hashes(texts: Texts) -> dict[str, str]:
    """Hash what can change a result.

    Args:
        texts: what :func:`read` found.

    Returns:
        A SHA-256 in hexadecimal for each part. A part without files has none: the notebooks, where
        the package is installed outside the repository.
    """
    found = {}
    for part, files in texts.items():
        essences = "".join(f"{name}\n{_essence(name, text)}\0" for name, text in files.items())
        if files:
            found[part] = hashlib.sha256(essences.encode()).hexdigest()
    return found


# Read when the program starts: a run may take hours, in which files are edited.
_AT_START = read()


@cache
def _hashes_at_start() -> dict[str, str]:
    return hashes(_AT_START)


def at_start() -> dict[str, str]:
    """The :func:`hashes` of the code as it was when this module was imported."""
    return dict(_hashes_at_start())


def in_common(
    first: Mapping[str, str | None], *others: Mapping[str, str | None]
) -> dict[str, str | None]:
    """Put together the hashes of all that had a hand in a result.

    Args:
        first, others: hashes by part, of runs or of the sessions of one run.

    Returns:
        For each part of ``first`` the hash on which all agree; None where they do not.
    """
    return {
        part: value if all(other.get(part) == value for other in others) else None
        for part, value in first.items()
    }


# --- what of a file counts ----------------------------------------------------------------------


def _essence(name: str, text: str) -> str:
    """What of a file can change a result."""
    try:
        if name.endswith(".ipynb"):
            return _without_remarks(_code_of_notebook(text))
        return _without_remarks(text) if name.endswith(".py") else text
    except (SyntaxError, ValueError, tokenize.TokenError):  # being edited, or IPython's own syntax
        return text


def _code_of_notebook(text: str) -> str:
    cells = json.loads(text)["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def _without_remarks(text: str) -> str:
    """Python without comments, docstrings and blank lines.

    They are cut out of the text, which stays as it is otherwise: a syntax tree would be written
    differently by every version of Python.
    """
    comments, tokens = [], []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comments.append(token)
        elif token.type not in (tokenize.NL, tokenize.INDENT, tokenize.DEDENT):
            tokens.append(token)
    ends = [tokenize.NEWLINE, *(token.type for token in tokens), tokenize.NEWLINE]
    docstrings = [  # strings that are a statement by themselves
        token
        for index, token in enumerate(tokens)
        if ends[index : index + 3] == [tokenize.NEWLINE, tokenize.STRING, tokenize.NEWLINE]
    ]
    lines = text.split("\n")
    for token in sorted(comments + docstrings, reverse=True, key=lambda token: token.start):
        (first, left), (last, right) = token.start, token.end
        lines[first - 1 : last] = [lines[first - 1][:left] + lines[last - 1][right:]]
    return "\n".join(line.rstrip() for line in lines if line.strip())
