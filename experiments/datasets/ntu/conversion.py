"""``python -m experiments.datasets ntu RAW OUT``: from .skeleton files to the common format."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from experiments.datasets import DataError
from experiments.datasets.ntu.actors import main_actors
from experiments.datasets.ntu.reader import read_skeleton
from experiments.datasets.ntu.samples import SUFFIX, Sample, describe, missing, parse_name
from experiments.datasets.raw_files import printable, raw_files
from experiments.datasets.recordings import (
    Recordings,
    Rejected,
    SkeletonError,
    open_recordings,
    writing,
)
from irevrnn.kernels.jit.compiler import say

#: A process is worth its start if there are this many files for it.
FILES_PER_WORKER = 128
_FILES = re.compile(rf".*{re.escape(SUFFIX)}", re.DOTALL)


def convert(name: str, raw: Path, out: Path, workers: int | None = None) -> Recordings:
    """Convert NTU RGB+D 60, if all files belong to that, or 120.

    Recordings on the authors' list of missing skeletons are left out. ``workers`` processes read
    the files, by default one per core. The columns are ``setup``, ``camera`` and ``repetition``.
    """
    found, rejected = _find(raw)
    files = {sample: path for sample, path in found.items() if sample not in missing()}
    listed = f"{len(found) - len(files):,} on the authors' list of missing skeletons"
    if not files:
        message = f"{raw} holds no {SUFFIX} file of NTU RGB+D to convert ({listed})"
        raise DataError("\n".join([message, *map(str, rejected)]))
    about = describe([*files])
    say(f"{about.data_set}: {len(files):,} files to convert, and {listed}")
    processes = min(workers or os.cpu_count() or 1, len(files) // FILES_PER_WORKER)
    results = tqdm(_read(_Files([*files.values()]), processes), total=len(files), disable=None)
    with writing(out, about, bodies=2) as writer:
        writer.rejected += rejected
        for sample, result in zip(files, results, strict=True):
            if isinstance(result, Rejected):
                writer.rejected.append(result)
                continue
            setup, camera, subject, repetition, action = sample
            columns = {"setup": setup, "camera": camera, "repetition": repetition}
            writer.add(result, action - 1, subject, str(sample), **columns)
        writer.rejected.sort(key=str)
    return open_recordings(out)


def _find(raw: Path) -> tuple[dict[Sample, Path], list[Rejected]]:
    """List the files to convert, in the order of their names, and those that are none."""
    found: dict[Sample, Path] = {}
    rejected: list[Rejected] = []
    for path in raw_files(raw, _FILES, lambda *why: rejected.append(Rejected(*why))):
        try:
            found[parse_name(path.name.removesuffix(SUFFIX))] = path
        except ValueError as error:
            rejected.append(Rejected(printable(path.name), str(error)))
    return found, rejected


class _Files(Dataset[np.ndarray | Rejected]):
    """The frames of some files, each read when it is asked for, or why it is no recording."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray | Rejected:
        path = self.paths[index]
        try:
            return main_actors(read_skeleton(path))
        except SkeletonError as error:
            return Rejected(path.name, error.reason, error.line)
        except OSError as error:
            return Rejected(path.name, f"the file cannot be read: {error.strerror}")


def _read(files: _Files, processes: int) -> Iterator[np.ndarray | Rejected]:
    if processes <= 1:
        yield from map(files.__getitem__, range(len(files)))
        return
    # PyTorch's workers leave Ctrl-C to the parent, end with it, and are missed if they are killed.
    try:
        yield from DataLoader(
            files, None, num_workers=processes, multiprocessing_context="spawn",
            prefetch_factor=16, collate_fn=_unchanged,
            worker_init_fn=partial(_end_without, os.getpid()),
        )  # fmt: skip
    except RuntimeError as error:
        raise DataError(
            "a process that read files was killed, perhaps because memory ran out: try fewer "
            "workers"
        ) from error


def _unchanged(result: Any) -> Any:
    return result


def _end_without(parent: int, worker: int) -> None:
    """End a worker whose parent was killed before PyTorch began to watch it."""
    if os.getppid() != parent:
        os._exit(1)
