"""The figures: one style, one place where they go, one function for each.

A function takes plain numbers and returns a Matplotlib figure; it computes nothing, so a figure can
be drawn again from the result files. A notebook calls :func:`style` once, hands its figures to
:func:`save` and its numbers to :func:`write_result`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from cycler import cycler
from matplotlib.figure import Figure

from irevrnn.files import replacing, write_text

PROFILES = ("smoke", "quick", "paper")
#: Widths in inches: a column of a two-column page, and the whole page.
COLUMN, PAGE = 3.4, 6.8
#: Okabe and Ito's colours, told apart by colour-blind readers too (without their pale yellow).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
#: For guides: bounds, predictions, zero lines.
GREY = "#777777"
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
_STAMP_POINTS = 6


def style() -> None:
    """Set Matplotlib up: the sizes of print, lines that also differ in black and white."""
    plt.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=COLOURS, marker=_MARKERS, linestyle=_LINES),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 8,
            "axes.titleweight": "bold",
            "figure.constrained_layout.use": True,
            "figure.dpi": 150,
            "figure.figsize": (COLUMN, 2.4),
            "font.size": 8,
            "grid.color": "#dddddd",
            "grid.linewidth": 0.5,
            "legend.fontsize": 7,
            "legend.frameon": False,
            "lines.linewidth": 1.2,
            "lines.markersize": 3.5,
            "savefig.dpi": 200,
            "svg.fonttype": "path",  # text renders the same where the font is missing
            "svg.hashsalt": "irevrnn",  # the same figure gives the same file
            "xtick.labelsize": 7,
            "ytick.labelsize": 7,
        }
    )


# --- where things go ----------------------------------------------------------------------------


def folder(profile: str) -> Path:
    """Where results and figures of a profile go, in ``results/`` and ``figures/``.

    Args:
        profile: ``smoke``, ``quick`` or ``paper``.

    Returns:
        ``paper/`` of the repository for the paper profile, ``build/<profile>/`` for the others.

    Raises:
        ValueError: for an unknown profile.
        FileNotFoundError: outside the repository.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}; got {profile!r}")
    return _repository() / ("paper" if profile == "paper" else f"build/{profile}")


def _repository() -> Path:
    # A notebook's working directory lies in the repository it belongs to. The package need not: it
    # may be installed elsewhere.
    here = Path.cwd()
    package = Path(__file__).resolve()
    for candidate in (here, *here.parents, *package.parents):
        if (candidate / "pyproject.toml").is_file() and (candidate / "notebooks").is_dir():
            return candidate
    raise FileNotFoundError(f"{here} is not inside the irevrnn repository, where results would go")


def save(figure: Figure, name: str, profile: str) -> None:
    """Write ``figures/<name>.svg`` and ``figures/<name>.png``.

    A figure of a small profile says so on its face.

    Args:
        figure: what a function of this module returned.
        name: file name without its ending.
        profile: the profile that made it.
    """
    if profile != "paper":
        _stamp(figure, f"{profile} profile")
    target = _subfolder(profile, "figures")
    for kind, metadata in (("svg", {"Date": None}), ("png", {})):
        with replacing(target / f"{name}.{kind}") as temporary:
            figure.savefig(temporary, format=kind, metadata=metadata)


def _stamp(figure: Figure, text: str) -> None:
    """Write ``text`` along the lower edge, on a strip of its own that the axes make room for."""
    strip = 1.6 * _STAMP_POINTS / 72 / figure.get_figheight()
    figure.set_layout_engine("constrained", rect=(0, strip, 1, 1 - strip))
    look = {"ha": "right", "va": "bottom", "size": _STAMP_POINTS, "color": GREY}
    figure.text(0.995, 0.2 * strip, text, gid="stamp", **look)


def write_result(name: str, data: Mapping[str, Any], profile: str) -> None:
    """Write ``results/<name>.json``, whole or not at all, with the profile that made it.

    Args:
        name: file name without its ending.
        data: what JSON can hold; None for a number that does not exist, as JSON has no NaN.
        profile: the profile that made it.
    """
    text = json.dumps({**data, "profile": profile}, indent=2, sort_keys=True, allow_nan=False)
    write_text(_subfolder(profile, "results") / f"{name}.json", f"{text}\n")


def _subfolder(profile: str, name: str) -> Path:
    path = folder(profile) / name
    path.mkdir(parents=True, exist_ok=True)
    return path

