"""``python -m experiments.datasets ntu RAW OUT``: from .skeleton files to the common format.

Processes read the files and write the actors of each into a file of its own, in ``OUT/.parts``. At
the end these are put together, in the order of their names, and removed; so a conversion needs
twice the size of its output for a while. It can be killed at any time: the next one continues. Run
again on a folder in which files have changed, it reads only those.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple
from functools import partial
from pathlib import Path
from typing import NamedTuple
from zipfile import ZipFile

import numpy as np
from filelock import FileLock, Timeout
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from experiments.datasets import DataError
from experiments.datasets.ntu.actors import main_actors
from experiments.datasets.ntu.reader import read_skeleton
from experiments.datasets.ntu.samples import SUFFIX, Sample, describe, missing, parse_name
from experiments.datasets.raw_files import printable, raw_files
from experiments.datasets.recordings import (
    Description,
    Recordings,
    Rejected,
    SkeletonError,
    open_recordings,
    writing,
)
from experiments.files import replacing, write_text
from irevrnn.kernels.jit.compiler import say

#: Increased when a file would be read to another result than before.
VERSION = 2
#: A process is worth its start if there are this many files for it.
FILES_PER_WORKER = 128
_FILES = re.compile(rf".*{re.escape(SUFFIX)}", re.DOTALL)
_PARTS = ".parts"
_SOURCES = "sources.json"


class Source(NamedTuple):
    """A file to convert, and the key under which its result is kept."""

    path: Path
    sample: Sample
    key: str


#: The result of reading a file: a function that returns its frames, or why it is no recording.
Result = Callable[[], np.ndarray] | Rejected


def convert(name: str, raw: Path, out: Path, workers: int | None = None) -> Recordings:
    """Convert NTU RGB+D 60, if all files belong to that, or 120.

    Recordings on the authors' list of missing skeletons are left out. ``workers`` processes read
    the files, by default one per core. The columns are ``setup``, ``camera`` and ``repetition``.
    """
    found, rejected = _find(raw)
    sources = [source for source in found if source.sample not in missing()]
    listed = f"{len(found) - len(sources):,} on the authors' list of missing skeletons"
    if not sources:
        message = f"{raw} holds no {SUFFIX} file of NTU RGB+D to convert ({listed})"
        raise DataError("\n".join([message, *map(str, rejected)]))
    about = describe([source.sample for source in sources])
    say(f"{about.data_set}: {len(sources):,} files to convert, and {listed}")
    with _writable(out), _alone(out):
        results = _finished(out)
        unfinished = [source for source in sources if source.key not in results]
        rejected += _read_all(unfinished, out / _PARTS, workers or os.cpu_count() or 1, results)
        _assemble(out, about, sources, results, rejected)
    return open_recordings(out)


def _find(raw: Path) -> tuple[list[Source], list[Rejected]]:
    """List the files to convert, in the order of their names, and those that are none."""
    found: list[Source] = []
    rejected: list[Rejected] = []
    for path in raw_files(raw, _FILES, lambda *why: rejected.append(Rejected(*why))):
        try:
            sample, status = parse_name(path.name.removesuffix(SUFFIX)), path.stat()
        except (ValueError, OSError) as error:
            rejected.append(Rejected(printable(path.name), str(error)))
        else:
            key = f"{sample}-{status.st_size}-{status.st_mtime_ns}-{VERSION}"
            found.append(Source(path, sample, key))
    return found, rejected


def _finished(out: Path) -> dict[str, Result]:
    """Return the results of earlier conversions by the keys of their files."""
    results: dict[str, Result] = {}
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, DataError):
        known = json.loads((out / _SOURCES).read_text(encoding="utf-8"))
        recordings = open_recordings(out)
        if [key.partition("-")[0] for key in known["recordings"]] == recordings.names.tolist():
            for index, key in enumerate(known["recordings"]):
                results[key] = partial(recordings.__getitem__, index)
            results |= {key: Rejected(*values) for key, values in known["rejected"].items()}
    for path in (out / _PARTS).glob("*.npz"):
        with suppress(Exception), ZipFile(path) as file:  # what is damaged is read again
            if file.testzip() is None:
                results[path.stem] = partial(_load_part, path)
    return results


def _load_part(path: Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as file:
        return file["frames"]


def _read_all(
    sources: Sequence[Source], parts: Path, workers: int, results: dict[str, Result]
) -> list[Rejected]:
    """Read files into ``parts`` and add to ``results``; return what to try again the next time."""
    parts.mkdir(exist_ok=True)
    outcomes = _outcomes(_Parts(sources, parts), min(workers, len(sources) // FILES_PER_WORKER))
    progress = tqdm(outcomes, total=len(sources), unit="file", desc="reading", disable=None)
    unreadable = []
    for source, outcome in zip(sources, progress, strict=True):
        if isinstance(outcome, DataError):
            raise outcome
        if isinstance(outcome, OSError):
            reason = f"the file cannot be read: {outcome.strerror}"
            unreadable.append(Rejected(source.path.name, reason))
        else:
            results[source.key] = outcome
    return unreadable


#: An OSError if the file cannot be read, which may be possible the next time; a DataError if the
#: part cannot be written.
Outcome = Result | OSError | DataError


class _Parts(Dataset[Outcome]):
    """The parts of some files, each read and written when it is asked for."""

    def __init__(self, sources: Sequence[Source], folder: Path) -> None:
        self.sources = sources
        self.folder = folder

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> Outcome:
        source = self.sources[index]
        path = self.folder / f"{source.key}.npz"
        try:
            frames = main_actors(read_skeleton(source.path))
            with _writable(path), replacing(path) as temporary, temporary.open("wb") as file:
                np.savez(file, frames=frames)
        except SkeletonError as error:
            return Rejected(source.path.name, error.reason, error.line)
        except (OSError, DataError) as error:
            return error
        return partial(_load_part, path)


def _outcomes(parts: _Parts, workers: int) -> Iterator[Outcome]:
    if workers <= 1:
        yield from map(parts.__getitem__, range(len(parts)))
        return
    # PyTorch's workers leave Ctrl-C to the parent, end with it, and are missed if they are killed.
    try:
        yield from DataLoader(
            parts, None, num_workers=workers, multiprocessing_context="spawn", prefetch_factor=16,
            worker_init_fn=partial(_end_without, os.getpid()),
        )  # fmt: skip
    except RuntimeError as error:
        raise DataError(
            "a process that read files was killed, perhaps because memory ran out. Finished work "
            "is kept: run the same command again to continue, or with fewer workers"
        ) from error


def _end_without(parent: int, worker: int) -> None:
    """End a worker whose parent was killed before PyTorch began to watch it."""
    if os.getppid() != parent:
        os._exit(1)


def _assemble(
    out: Path, about: Description, sources: Sequence[Source], results: dict[str, Result],
    rejected: list[Rejected],
) -> None:  # fmt: skip
    """Write the output, unless it is there already."""
    kept, spoiled = [], {}
    for source in sources:
        result = results.get(source.key)
        if isinstance(result, Rejected):
            spoiled[source.key] = result
        elif result is not None:
            kept.append((source, result))
    rejected = sorted([*rejected, *spoiled.values()], key=str)
    if not kept:
        raise DataError("\n".join(["no file is a recording:", *map(str, rejected)]))
    content = {
        "recordings": [source.key for source, _ in kept],
        "rejected": {key: astuple(one) for key, one in spoiled.items()},
        "all_rejected": [str(one) for one in rejected],
    }
    text = json.dumps(content) + "\n"
    known = out / _SOURCES
    if any((out / _PARTS).iterdir()) or not known.is_file() or known.read_text() != text:
        with writing(out, about, bodies=2) as writer:
            writer.rejected += rejected
            for source, frames in tqdm(kept, unit="file", desc="writing", disable=None):
                setup, camera, subject, repetition, action = source.sample
                columns = {"setup": setup, "camera": camera, "repetition": repetition}
                writer.add(frames(), action - 1, subject, str(source.sample), **columns)
        write_text(known, text)
    shutil.rmtree(out / _PARTS)


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    """Explain an OSError of writing below ``path``."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror or error}. Finished work is kept: when the "
            "problem is solved, run the same command again to continue"
        ) from error


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep other conversions out of the folder, and remove the temporary files of a killed one."""
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", timeout=0):
            for half in [*out.glob(".*.tmp"), *out.glob(f"{_PARTS}/.*.tmp")]:
                half.unlink()
            yield
    except Timeout:
        raise DataError(f"another conversion writes {out}; name another folder") from None
