"""Compile the paper: ``python paper/build.py [--profile smoke|quick|paper]``.

The text in ``paper.typ`` and ``sections/`` reads its numbers from result files and its figures from
SVG files. Where one is missing, or a figure was drawn by another run than its result, the build
fails and names the command that makes it. It warns of committed results that were not made from
committed code.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import typst

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCE = REPOSITORY / "paper" / "paper.typ"
PROFILES = ("smoke", "quick", "paper")


#: What writes each result file, ``results/<name>.json``: a notebook, or a command.
MADE_BY = {
    "derivation": "notebooks/01_derivation.ipynb",
    "inverse": "notebooks/02_exact_inverse.ipynb",
    "mnist": "notebooks/04_mnist.ipynb",
    "watch": "notebooks/05_action_recognition.ipynb",
    "memory": "notebooks/06_costs.ipynb",
    "benchmark": "notebooks/06_costs.ipynb",
    "frontier": "notebooks/06_costs.ipynb",
    "long_signals": "notebooks/07_long_signals.ipynb",
    "experiments": "make tables",
}
#: What is made from committed results: the same in every profile.
COLLECTED = "experiments"
#: Results that may be missing, of data that people bring. The paper says "not yet run" of them.
BROUGHT = ("utkinect", "msr", "ntu60", "ntu120")
_FIGURES_OF = {
    "derivation": ("drift", "accuracy"),
    "inverse": ("reversal",),
    "memory": ("entropy", "lengths", "same_training"),
    "experiments": ("bits", "comparison"),
    "frontier": ("frontier",),
}
#: The result that each figure, ``figures/<name>.svg``, is drawn with: of the paper, and of pages.
FIGURES = {figure: result for result, figures in _FIGURES_OF.items() for figure in figures}


class BuildError(Exception):
    """The paper cannot be built; the message says why and what to do."""


def build(results: Path, figures: Path, output: Path, profile: str = "paper") -> str:
    """Compile the paper.

    Args:
        results: folder of the result files.
        figures: folder of the figures.
        output: the PDF to write, once it is compiled.
        profile: the profile that made them.

    Returns:
        The compiler's warnings, one a line; empty if there are none.

    Raises:
        BuildError: something is missing, results and figures do not go together, or Typst fails.
    """
    check_inputs(results, figures, profile)
    pdf, warnings = compile_paper(results, figures)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(pdf)
    return "\n".join(warnings)


# --- what the paper is made of ------------------------------------------------------------------


def check_inputs(results: Path, figures: Path, profile: str) -> None:
    """Check that every result and figure exists, and that each figure was drawn with its result.

    Raises:
        BuildError: names all that are missing or of another run.
    """
    made_by = {results / f"{name}.json": maker for name, maker in MADE_BY.items()}
    drawn_with = {
        figures / f"{name}.svg": results / f"{result}.json" for name, result in FIGURES.items()
    }
    made_by |= {figure: made_by[result] for figure, result in drawn_with.items()}
    missing = [
        f"  {_shown(path)}  (from {by})" for path, by in made_by.items() if not path.exists()
    ]
    if missing:
        remedy = f"To make them: make reproduce PROFILE={profile}"
        if profile == "paper":
            remedy += " (takes hours; make reproduce builds a paper from a short run)"
        raise BuildError("\n".join(["these files are missing:", *missing, remedy]))
    foreign = [
        f"  {_shown(figure)} was not drawn with {_shown(result)} (to make it again: "
        f"{_command(figure.stem, profile)})"
        for figure, result in drawn_with.items()
        if _digest(figure) != _read(result).get("figures", {}).get(figure.stem)
    ]
    if foreign:
        raise BuildError("\n".join(["these figures and results are of different runs:", *foreign]))
    # The other profiles draw what is committed.
    runs = results if profile == "paper" else REPOSITORY / "paper" / "results"
    experiments = {path.stem: _digest(path) for path in runs.glob("experiments/*.json")}
    table = results / "experiments.json"
    made_from = _read(table)["made_from"]
    if changed := sorted({name for name, _ in experiments.items() ^ made_from.items()}):
        raise BuildError(
            f"{_shown(table)} was made from other results than those in experiments/: "
            f"{', '.join(changed)} (to make it again: {MADE_BY[COLLECTED]})"
        )


def notebook_of(figure: str) -> str:
    """Return the notebook that draws a figure."""
    if figure not in FIGURES:
        raise BuildError(f"FIGURE={figure} is unknown: choose one of {', '.join(sorted(FIGURES))}")
    if FIGURES[figure] == COLLECTED:
        raise BuildError(f"FIGURE={figure} is drawn from committed results, by {_command(figure)}")
    return MADE_BY[FIGURES[figure]]


def _command(figure: str, profile: str = "paper") -> str:
    """Return the command that draws a figure."""
    if FIGURES[figure] == COLLECTED:
        return MADE_BY[COLLECTED]
    return f"make reproduce PROFILE={profile} FIGURE={figure}"


def take_collected(results: Path, figures: Path) -> None:
    """Copy what is made from committed results to the folders of a profile."""
    committed = REPOSITORY / "paper"
    files = {results: [f"{COLLECTED}.json"]}
    files[figures] = [f"{name}.svg" for name in _FIGURES_OF[COLLECTED]]
    for folder, names in files.items():
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            with suppress(FileNotFoundError):  # which the build will name
                shutil.copy(committed / folder.name / name, folder)


def made_from_uncommitted(results: Path) -> list[str]:
    """Return the results that record no commit, or uncommitted changes."""
    return [
        path.relative_to(results).as_posix()
        for path in sorted(results.rglob("*.json"))
        if any(commit is None or commit.endswith("-dirty") for commit in _commits(_read(path)))
    ]


def _commits(result: dict[str, Any]) -> list[str | None]:
    """Return the commits of a result: a run that was resumed, or a summary, may have several."""
    if "methods" in result:  # of a search, every trial
        return [trial["git_commit"] for trials in result["methods"].values() for trial in trials]
    provenance = result.get("environment", result)
    return provenance.get("git_commits") or [provenance.get("git_commit")]


# --- Typst --------------------------------------------------------------------------------------


def compile_paper(results: Path, figures: Path) -> tuple[bytes, list[str]]:
    """Run Typst; return the PDF and the compiler's warnings."""
    compiler = make_compiler(results, figures)
    try:
        pdf, warnings = compiler.compile_with_warnings(format="pdf")
    except RuntimeError as error:  # typst.TypstError
        raise BuildError(f"Typst: {getattr(error, 'diagnostic', None) or error}") from None
    return pdf, [str(warning) for warning in warnings]


def make_compiler(results: Path, figures: Path) -> typst.Compiler:
    """Return a Typst compiler that reads the paper and the two folders."""
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
    drawn = {figure: MADE_BY[result] for figure, result in FIGURES.items()}
    inputs["made-by"] = json.dumps(MADE_BY | drawn)
    inputs["brought"] = " ".join(name for name in BROUGHT if (results / f"{name}.json").is_file())
    # Its own fonts alone: the same pages on every machine.
    return typst.Compiler(str(SOURCE), root=str(root), sys_inputs=inputs, ignore_system_fonts=True)


def _read(result: Path) -> dict[str, Any]:
    return json.loads(result.read_text(encoding="utf-8"))


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _shown(path: Path) -> str:
    return str(path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path)


# --- the command --------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the paper of a profile and print its path, or name the notebook of a figure."""
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
    options = parser.parse_args(arguments)
    try:
        if options.notebook_of is not None:
            print(notebook_of(options.notebook_of))
        else:
            _build_profile(options.profile)
    except BuildError as error:
        sys.exit(f"paper/build.py: {error}")


def _build_profile(profile: str) -> None:
    folder = REPOSITORY / ("paper" if profile == "paper" else f"build/{profile}")
    output = folder / "paper.pdf"
    if profile != "paper":
        take_collected(folder / "results", folder / "figures")
    if warnings := build(folder / "results", folder / "figures", output, profile):
        print(warnings, file=sys.stderr)
    if profile == "paper" and (names := made_from_uncommitted(folder / "results")):
        print(f"warning: not made from committed code: {', '.join(names)}", file=sys.stderr)
    print(_shown(output))


if __name__ == "__main__":
    main()
