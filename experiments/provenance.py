"""Where a result comes from: the code, the packages and the machine."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from experiments import sources

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("irevrnn", "torch", "numpy", "lightning-fabric", "torchvision")


def provenance() -> dict[str, Any]:
    """Describe code and machine, ready for JSON.

    Returns:
        ``git_commit``; ``sources``, a hash of each part of the code (:mod:`experiments.sources`);
        ``versions``, ``cpu``, ``gpu``, ``threads`` and ``platform``.
    """
    return {
        "git_commit": _git_commit(),
        "sources": sources.at_start(),
        "versions": {"python": platform.python_version(), **_versions()},
        "cpu": _cpu(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
    }


def _git_commit() -> str | None:
    """The commit checked out, with ``-dirty`` if tracked files differ; None outside a checkout."""
    if not (REPOSITORY / ".git").exists():  # an installed package may lie inside another repository
        return None
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
