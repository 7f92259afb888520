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
from experiments.folders import folder, repository, subfolder
from experiments.provenance import require_clean

#: SHA-256 of every SVG file that this process drew.
_drawn: dict[Path, str] = {}


def save(figure: Figure, name: str, profile: str) -> None:
    """Write ``figures/<name>.svg`` of a profile.

    A figure of a small profile carries the profile's name on its lower edge.
    """
    if profile != "paper":
        _stamp(figure, f"{profile} profile")
    svg = subfolder(profile, "figures") / f"{name}.svg"
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
    file = subfolder(profile, "results") / f"{name}.json"
    write_text(file, f"{text}\n")
    print(f"written to {file.relative_to(repository())}")
