"""Compile the paper: ``python paper/build.py [--profile smoke|quick|paper]``.

The text is in ``paper.typ`` and ``sections/``; its numbers come from result files and its figures
from SVG files, which the notebooks write. Whatever is missing stops the build with its name and the
command that makes it: the paper has no silent gaps. So does what is no longer true: a result whose
code has changed since it was made, unless ``accepted.json`` says why it still holds, and a figure
that another run has drawn than the one that wrote its result.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import freshness
from freshness import BuildError, find_changes, read_accepted

if TYPE_CHECKING:
    import typst

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCE = REPOSITORY / "paper" / "paper.typ"
ACCEPTED = REPOSITORY / "paper" / "accepted.json"
PROFILES = ("smoke", "quick", "paper")

#: The notebook that writes each result file, ``results/<name>.json``.
NOTEBOOKS = {
    "derivation": "notebooks/01_derivation.ipynb",
    "mnist": "notebooks/02_mnist.ipynb",
    "watch": "notebooks/03_action_recognition.ipynb",
    "memory": "notebooks/04_memory.ipynb",
    "benchmark": "notebooks/04_memory.ipynb",
    "experiments": "notebooks/05_experiments.ipynb",
}
#: Results that may not be there: of data that people bring, and of long experiments. The paper says
#: "not yet run" of them, or nothing.
BROUGHT = ("utkinect", "msr", "ntu60", "ntu120", "experiments")
#: The result that each figure, ``figures/<name>.svg``, was drawn from.
FIGURES = {
    "drift": "derivation",
    "saturation": "derivation",
    "forgotten": "derivation",
    "division": "derivation",
    "accuracy": "derivation",
    "learning_curve": "mnist",
    "confusion": "mnist",
    "mistakes": "mnist",
    "watch_confusion": "watch",
    "watch_subjects": "watch",
    "saved_bytes": "memory",
    "peak_memory": "memory",
    "entropy": "memory",
    "lengths": "memory",
    "crossover": "memory",
    "same_training": "memory",
    "comparison": "experiments",
    "race": "experiments",
}
#: The command that writes a result again, where that is not one of NOTEBOOKS.
COMMANDS = {
    "utkinect": "make reproduce PROFILE={profile} FIGURE=watch_confusion",
    "msr": "make reproduce PROFILE={profile} FIGURE=watch_confusion",
    "ntu60": "python -m experiments.train action --data-set ntu60",
    "ntu120": "python -m experiments.train action --data-set ntu120",
    "cuda_kernels": "python -m experiments.bench.cuda_resources --output paper/results/cuda_kernels.json",
    "ntu_reader": "python -m experiments.datasets.ntu.benchmark --output paper/results/ntu_reader.json",
}
_LAYER = ("cell", "compiler", "kernels", "layer")
_ACTION = (*_LAYER, "training", "action", "notebooks/03")
_NTU = (*_LAYER, "training", "action", "datasets/ntu")
#: The parts of the code (experiments/sources.py) that each result depends on.
DEPENDS = {
    "derivation": (*_LAYER, "notebooks/01"),
    "mnist": (*_LAYER, "training", "datasets/mnist", "notebooks/02"),
    "watch": (*_ACTION, "datasets/watch"),
    "utkinect": (*_ACTION, "datasets/kinect"),
    "msr": (*_ACTION, "datasets/kinect"),
    "ntu60": _NTU,
    "ntu120": _NTU,
    "memory": (*_LAYER, "measuring", "benchmark", "notebooks/04"),
    "benchmark": (*_LAYER, "measuring", "benchmark", "notebooks/04"),
    "cuda_kernels": ("compiler", "kernels", "cuda"),
    "ntu_reader": ("compiler", "datasets/ntu", "measuring"),
    "experiments": (*_LAYER, "training", "action", "datasets/watch", "measuring", "notebooks/05"),
    # Those in results/experiments/, by their task.
    "experiments/mnist": (*_LAYER, "training", "datasets/mnist"),
    "experiments/adding": (*_LAYER, "training", "synthetic"),
    "experiments/copy": (*_LAYER, "training", "synthetic"),
    "experiments/sessions": (*_LAYER, "training", "action", "datasets/watch"),
}


def build(results: Path, figures: Path, output: Path, profile: str = "paper") -> str:
    """Compile the paper.

    Args:
        results: folder of the result files.
        figures: folder of the figures.
        output: the PDF to write, whole or not at all.
        profile: what made them; changes of the code are accepted for the ``paper`` profile alone.

    Returns:
        The compiler's warnings, one a line; empty if there are none.

    Raises:
        BuildError: something is missing, is not of the code as it is, or does not compile.
    """
    check_inputs(results, figures, profile)
    accepted = read_accepted(ACCEPTED) if profile == "paper" else {}
    freshness.check(find_changes(results, DEPENDS), accepted, partial(command, profile=profile))
    pdf, warnings = compile_paper(results, figures)
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(pdf)
        os.replace(temporary, output)
    finally:
        temporary.unlink(missing_ok=True)
    return "\n".join(warnings)


def check_inputs(results: Path, figures: Path, profile: str) -> None:
    """Check that every result and figure is there, each figure as drawn with its result.

    Raises:
        BuildError: names all that are missing or of another run.
    """
    made_by = {
        results / f"{name}.json": notebook
        for name, notebook in NOTEBOOKS.items()
        if name not in BROUGHT or (results / f"{name}.json").is_file()
    }
    drawn_with = {
        figures / f"{name}.svg": results / f"{result}.json"
        for name, result in FIGURES.items()
        if results / f"{result}.json" in made_by
    }
    made_by |= {figure: made_by[result] for figure, result in drawn_with.items()}
    missing = [path for path in made_by if not path.is_file()]
    if missing:
        lines = [f"  {_shown(path)}  (from {made_by[path]})" for path in missing]
        remedy = f"To make them: make reproduce PROFILE={profile}"
        if profile == "paper":
            remedy += " (takes hours; make reproduce builds a paper from a short run)"
        raise BuildError("\n".join(["these files are missing:", *lines, remedy]))
    foreign = [
        f"  {_shown(figure)} is not the one that was drawn with {_shown(result)} (to make both "
        f"again: make reproduce PROFILE={profile} FIGURE={figure.stem})"
        for figure, result in drawn_with.items()
        if _digest(figure) != _read(result).get("figures", {}).get(figure.stem)
    ]
    if foreign:
        raise BuildError("\n".join(["these figures and results are of different runs:", *foreign]))
    _check_experiments(results, profile)


def _check_experiments(results: Path, profile: str) -> None:
    """Check that experiments.json was made from the files in experiments/ as they are."""
    there = {path.stem: _digest(path) for path in results.glob("experiments/*.json")}
    index = results / "experiments.json"
    made_from = _read(index)["made_from"] if index.is_file() else {}
    if there != made_from:
        changed = sorted({name for name, _ in there.items() ^ made_from.items()})
        raise BuildError(
            f"{_shown(index)} was made without these experiments as they are: "
            f"{', '.join(changed)} (to make it again: {command('experiments', profile)})"
        )


def command(result: str, profile: str) -> str:
    """What makes a result again."""
    if result.startswith("experiments/"):
        return f"python -m experiments {result.partition('/')[2]}"
    if result in COMMANDS:
        return COMMANDS[result].format(profile=profile)
    notebook = NOTEBOOKS[result]
    figure = next(name for name, source in FIGURES.items() if NOTEBOOKS[source] == notebook)
    return f"make reproduce PROFILE={profile} FIGURE={figure}"


def _read(result: Path) -> dict[str, Any]:
    return json.loads(result.read_text(encoding="utf-8"))


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _shown(path: Path) -> str:
    return str(path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path)


def compile_paper(results: Path, figures: Path) -> tuple[bytes, list[str]]:
    """Run Typst.

    Args:
        results: folder of the result files.
        figures: folder of the figures.

    Returns:
        The PDF, and the compiler's warnings.

    Raises:
        BuildError: the compiler is not installed or refuses the source.
    """
    compiler = make_compiler(results, figures)
    try:
        pdf, warnings = compiler.compile_with_warnings(format="pdf")
    except RuntimeError as error:  # typst.TypstError
        raise BuildError(f"Typst: {getattr(error, 'diagnostic', None) or error}") from None
    return pdf, [str(warning) for warning in warnings]


def make_compiler(results: Path, figures: Path) -> typst.Compiler:
    """Give the Typst compiler the paper and the folders it reads.

    Raises:
        BuildError: the compiler is not installed.
    """
    try:
        import typst
    except ImportError:
        raise BuildError(
            "the Python package typst is missing: pip install -e '.[paper]', or run make paper"
        ) from None
    folders = {"results": results.resolve(), "figures": figures.resolve()}
    # Typst reads no file outside its root, and takes a path that starts with / from there.
    root = Path(os.path.commonpath([REPOSITORY, *folders.values()]))
    inputs = {name: f"/{folder.relative_to(root).as_posix()}" for name, folder in folders.items()}
    inputs["brought"] = " ".join(name for name in BROUGHT if (results / f"{name}.json").is_file())
    # Its own fonts alone: the same pages on every machine.
    return typst.Compiler(str(SOURCE), root=str(root), sys_inputs=inputs, ignore_system_fonts=True)


def accept(result: str, reason: str) -> str:
    """Accept that the code has changed since a committed result was made.

    Args:
        result: its name, or ``all``.
        reason: why it still holds.

    Returns:
        What is now accepted that was not before.

    Raises:
        BuildError: the result is unknown, or there is no reason.
    """
    found = find_changes(REPOSITORY / "paper/results", DEPENDS)
    if result not in ("all", *DEPENDS, *(change.result for change in found)):
        raise BuildError(f"there is no result {result!r}: choose all or one of {_listed(DEPENDS)}")
    if not reason.strip():
        raise BuildError("--accept needs a --reason that says why the result still holds")
    before = read_accepted(ACCEPTED)
    after = freshness.accept(found, before, result, reason)
    freshness.write_accepted(ACCEPTED, after)
    new = [f"{change.result}.json: {change.part}" for change in after if change not in before]
    return "\n".join(new) or "nothing was left to accept"


def notebook_of(figure: str) -> str:
    """The notebook that draws a figure.

    Raises:
        BuildError: the paper has no such figure.
    """
    if figure not in FIGURES:
        raise BuildError(f"FIGURE={figure} is unknown: choose one of {_listed(FIGURES)}")
    return NOTEBOOKS[FIGURES[figure]]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the paper of a profile and print where it is, or do what else is asked for."""
    options = _parse(arguments)
    try:
        if options.notebook_of is not None:
            print(notebook_of(options.notebook_of))
        elif options.accept is not None:
            print(accept(options.accept, options.reason))
        else:
            _build_profile(options.profile)
    except BuildError as error:
        sys.exit(f"paper/build.py: {error}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python paper/build.py",
        description="Compile the paper from the result files and figures of a profile.",
    )
    parser.add_argument(
        "--profile", choices=PROFILES, default="paper",
        help="paper (the default) reads paper/results and writes paper/paper.pdf; smoke and quick "
        "read and write under build/<profile>/",
    )  # fmt: skip
    parser.add_argument(
        "--notebook-of", metavar="FIGURE", help="print the notebook that draws a figure, and stop"
    )
    parser.add_argument(
        "--accept", metavar="RESULT",
        help="note in paper/accepted.json that this result in paper/results (or all of them) still "
        "holds, although its code has changed since, and stop",
    )  # fmt: skip
    parser.add_argument("--reason", default="", help="why it still holds")
    return parser.parse_args(arguments)


def _build_profile(profile: str) -> None:
    folder = REPOSITORY / ("paper" if profile == "paper" else f"build/{profile}")
    output = folder / "paper.pdf"
    warnings = build(folder / "results", folder / "figures", output, profile)
    if warnings:
        print(warnings, file=sys.stderr)
    print(_shown(output))


if __name__ == "__main__":
    main()
