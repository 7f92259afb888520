"""Record where a result comes from: the commit, the packages and the machine.

``python -m experiments.provenance`` fails if code has uncommitted changes; ``make reproduce`` runs
it before the hours of the paper profile.
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("irevrnn", "torch", "numpy", "lightning-fabric")
#: The folders whose code makes results. Changes elsewhere do not count: a new result is one itself.
CODE = ("irevrnn", "experiments", "notebooks")


class UncommittedChangesError(RuntimeError):
    """A result for ``paper/`` would be made from uncommitted code."""


def provenance() -> dict[str, Any]:
    """Describe code and machine, ready for JSON."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    versions["torch"] = torch.__version__  # with the build, such as +cpu, which a package may lack
    return {
        "git_commit": git_commit(REPOSITORY),
        "versions": versions,
        "cpu": _cpu(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
    }


@cache
def git_commit(repository: Path) -> str | None:
    """Return the commit that was checked out when this module was imported: a run may take hours.

    With uncommitted changes of the code, ``-dirty`` is appended. Outside a checkout, return None.
    """
    commit = _git(repository, "rev-parse", "HEAD")
    return f"{commit}-dirty" if commit and uncommitted(repository) else commit


@cache
def uncommitted(repository: Path) -> tuple[str, ...]:
    """Return the files of :data:`CODE` that differ from the commit, untracked ones included.

    Outputs of a notebook do not count: JupyterLab saves them by itself.
    """
    changes = _git(repository, "status", "--porcelain", "--no-renames", "--", *CODE) or ""
    files = (line.split(maxsplit=1)[1] for line in changes.splitlines())
    return tuple(file for file in files if not _differs_in_outputs_alone(repository, file))


def _differs_in_outputs_alone(repository: Path, file: str) -> bool:
    if not file.endswith(".ipynb"):
        return False
    try:
        after = _cells((repository / file).read_text(encoding="utf-8"))
        return after == _cells(_git(repository, "show", f"HEAD:./{file}") or "")
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _cells(notebook: str) -> list[tuple[str, str]]:
    """Return type and source of each cell."""
    return [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(notebook)["cells"]]


def require_clean(folder: Path | None = None) -> None:
    """Raise an UncommittedChangesError for results in ``folder`` made from uncommitted code.

    Only ``paper/``, the default, asks for committed code; outside a checkout nothing is refused.
    """
    if folder is not None and folder.resolve() != REPOSITORY / "paper":
        return
    if (REPOSITORY / ".git").exists() and git_commit(REPOSITORY) is None:
        raise UncommittedChangesError(
            "results in paper/ need committed code, but git does not say which commit this is: see "
            f"git status in {REPOSITORY}"
        )
    if changed := uncommitted(REPOSITORY):
        more = f" and {len(changed) - 4} more" if len(changed) > 4 else ""
        raise UncommittedChangesError(
            "results in paper/ need committed code, but these files had uncommitted changes when "
            f"the program started: {', '.join(changed[:4])}{more}. Commit or stash them and start "
            "again, or let results go elsewhere (PROFILE=quick, or --profile quick)"
        )


def _git(repository: Path, *arguments: str) -> str | None:
    """Return the output of a git command; None if it fails or there is no checkout."""
    if not (repository / ".git").exists():  # an installed package may lie inside another repository
        return None
    command = ["git", "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


git_commit(REPOSITORY)  # cached from here on, whatever is edited or committed meanwhile

if __name__ == "__main__":
    try:
        require_clean()
    except UncommittedChangesError as error:
        sys.exit(f"irevrnn: {error}")
