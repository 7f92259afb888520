"""Compile the paper: ``python paper/build.py [--profile smoke|quick|paper]``.

The text is in ``paper.typ`` and ``sections/``; its numbers come from result files and its figures
from SVG files, which the notebooks write. Whatever is missing stops the build with its name and the
command that makes it: the paper has no silent gaps.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typst

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCE = REPOSITORY / "paper" / "paper.typ"
PROFILES = ("smoke", "quick", "paper")

#: The notebook that writes each result file, ``results/<name>.json``.
NOTEBOOKS = {
    "derivation": "notebooks/01_derivation.ipynb",
    "mnist": "notebooks/02_mnist.ipynb",
    "watch": "notebooks/03_action_recognition.ipynb",
    "memory": "notebooks/04_memory.ipynb",
    "benchmark": "notebooks/04_memory.ipynb",
}
#: Results of data that people bring: the paper says "not yet run" of those that are not there.
BROUGHT = ("utkinect", "msr", "ntu60", "ntu120")
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
    "held_bytes": "memory",
    "peak_memory": "memory",
    "entropy": "memory",
    "lengths": "memory",
    "crossover": "memory",
    "same_training": "memory",
}
#: Seconds by which a figure may be older than its result: a notebook draws as it goes, and writes
#: its result at the end.
ONE_RUN = 3600.0


class BuildError(Exception):
    """The paper cannot be built; the message says why and what to do."""


def build(results: Path, figures: Path, output: Path, remedy: str = "run the notebooks") -> str:
    """Compile the paper.

    Args:
        results: folder of the result files.
        figures: folder of the figures.
        output: the PDF to write, whole or not at all.
        remedy: what to do about a missing file, for the message.

    Returns:
        The compiler's warnings, one a line; empty if there are none.

    Raises:
        BuildError: something is missing, is older than what it was made from, or does not compile.
    """
    check_inputs(results, figures, remedy)
    pdf, warnings = compile_paper(results, figures)
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(pdf)
        os.replace(temporary, output)
    finally:
        temporary.unlink(missing_ok=True)
    return "\n".join(warnings)


def check_inputs(results: Path, figures: Path, remedy: str) -> None:
    """Check that every result and figure is there, and no figure older than its result.

    Raises:
        BuildError: names all that are missing or stale.
    """
    made_by = {results / f"{name}.json": notebook for name, notebook in NOTEBOOKS.items()}
    drawn_from = {
        figures / f"{name}.svg": results / f"{result}.json" for name, result in FIGURES.items()
    }
    made_by |= {figure: made_by[result] for figure, result in drawn_from.items()}
    missing = [path for path in made_by if not path.is_file()]
    if missing:
        lines = [f"  {_shown(path)}  (from {made_by[path]})" for path in missing]
        raise BuildError("\n".join(["these files are missing:", *lines, f"To make them: {remedy}"]))
    stale = [
        f"  {_shown(figure)} is older than {_shown(result)}"
        for figure, result in drawn_from.items()
        if figure.stat().st_mtime < result.stat().st_mtime - ONE_RUN
        and not (_is_committed(figure) and _is_committed(result))
    ]
    if stale:
        raise BuildError("\n".join(["these figures are stale:", *stale, f"To draw them: {remedy}"]))


def _is_committed(path: Path) -> bool:
    """Whether git has the file as it is: its time is then that of a checkout and tells nothing."""
    git = ["git", "-C", str(path.parent)]
    try:
        for command in (["ls-files", "--error-unmatch"], ["diff", "--quiet", "HEAD", "--"]):
            subprocess.run([*git, *command, path.name], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


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


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the paper of a profile and print where it is."""
    parser = argparse.ArgumentParser(
        prog="python paper/build.py",
        description="Compile the paper from the result files and figures of a profile.",
    )
    parser.add_argument(
        "--profile", choices=PROFILES, default="paper",
        help="paper (the default) reads paper/results and writes paper/paper.pdf; smoke and quick "
        "read and write under build/<profile>/",
    )  # fmt: skip
    profile = parser.parse_args(arguments).profile
    folder = REPOSITORY / ("paper" if profile == "paper" else f"build/{profile}")
    output = folder / "paper.pdf"
    remedy = f"make reproduce PROFILE={profile}"
    if profile == "paper":
        remedy += " (takes hours; make reproduce builds a paper from a short run)"
    try:
        warnings = build(folder / "results", folder / "figures", output, remedy)
    except BuildError as error:
        sys.exit(f"paper/build.py: {error}")
    if warnings:
        print(warnings, file=sys.stderr)
    print(_shown(output))


if __name__ == "__main__":
    main()
