"""Where figures and results go, and what they record about their origin."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments.figures.theme import GREY
from experiments.files import replacing, write_text
from experiments.provenance import REPOSITORY, require_clean

PROFILES = ("smoke", "quick", "paper")
#: SHA-256 of every SVG file that this process drew.
_drawn: dict[Path, str] = {}


def folder(profile: str) -> Path:
    """Return the folder that holds ``results/`` and ``figures/`` of a profile.

    That is ``paper/`` of the repository for the paper profile, ``build/<profile>/`` for the others.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}; got {profile!r}")
    return repository() / ("paper" if profile == "paper" else f"build/{profile}")


def repository() -> Path:
    """Return the repository around the working directory, or else around the package."""
    here = Path.cwd()
    for candidate in (here, *here.parents):
        if (candidate / "pyproject.toml").is_file() and (candidate / "notebooks").is_dir():
            return candidate
    return REPOSITORY


def save(figure: Figure, name: str, profile: str, note: str = "") -> None:
    """Write ``figures/<name>.svg`` of a profile.

    A figure of a small profile carries the profile's name on its lower edge, and ``note``.
    """
    if profile != "paper":
        _stamp(figure, ", ".join(filter(None, (f"{profile} profile", note))))
    svg = _subfolder(profile, "figures") / f"{name}.svg"
    with replacing(svg) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    _drawn[svg] = hashlib.sha256(svg.read_bytes()).hexdigest()


def _stamp(figure: Figure, text: str) -> None:
    """Write ``text`` along the lower edge, on a strip of its own that the axes make room for."""
    points = 6
    strip = 1.6 * points / 72 / figure.get_figheight()
    figure.set_layout_engine("constrained", rect=(0, strip, 1, 1 - strip))
    figure.text(0.995, 0.2 * strip, text, gid="stamp", ha="right", va="bottom", size=points,
                color=GREY)  # fmt: skip


def write_result(name: str, data: Mapping[str, Any], profile: str) -> None:
    """Write ``results/<name>.json`` atomically, with the profile that made it, and say so.

    The file also records, as ``figures``, the hash of every figure that this process has drawn for
    the profile: the paper is not built with a figure that another run has drawn since.

    JSON has no NaN: ``data`` has None for a number that does not exist. For the paper profile,
    uncommitted code raises an :exc:`experiments.provenance.UncommittedChangesError`.
    """
    require_clean(folder(profile))
    place = folder(profile) / "figures"
    drawn = {path.stem: digest for path, digest in _drawn.items() if path.parent == place}
    content = {**data, "profile": profile, "figures": drawn}
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
    file = _subfolder(profile, "results") / f"{name}.json"
    write_text(file, f"{text}\n")
    print(f"written to {file.relative_to(repository())}")


def _subfolder(profile: str, name: str) -> Path:
    path = folder(profile) / name
    path.mkdir(parents=True, exist_ok=True)
    return path
