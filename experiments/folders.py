"""The profiles of notebooks and experiments, and the folders that their results go to."""

from __future__ import annotations

from pathlib import Path

from experiments.provenance import REPOSITORY

PROFILES = ("smoke", "quick", "paper")


def folder(profile: str) -> Path:
    """Return the folder that holds ``results/`` and ``figures/`` of a profile.

    That is ``paper/`` of the repository for the paper profile, ``build/<profile>/`` for the others.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}; got {profile!r}")
    return repository() / ("paper" if profile == "paper" else f"build/{profile}")


def subfolder(profile: str, name: str) -> Path:
    """Return a folder in that of a profile, such as ``results``, and make it."""
    path = folder(profile) / name
    path.mkdir(parents=True, exist_ok=True)
    return path


def repository() -> Path:
    """Return the repository around the working directory, or else around the package."""
    here = Path.cwd()
    for candidate in (here, *here.parents):
        if (candidate / "pyproject.toml").is_file() and (candidate / "notebooks").is_dir():
            return candidate
    return REPOSITORY
