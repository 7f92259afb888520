"""``python -m experiments.datasets ntu RAW OUT``: from .skeleton files to the common format.

Several processes read files and write parts (see :mod:`.parts`); at the end the parts are put
behind one another, in the order of their names, and removed. So while it runs, a conversion takes
the size of its output twice. It can be killed at any time: the next one goes on from the parts. Run
again on a folder in which files have changed, it reads only those.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from experiments.datasets import DataError
from experiments.datasets.ntu.actors import main_actors
from experiments.datasets.ntu.names import Sample, description, is_in_60, missing, parse_name
from experiments.datasets.ntu.parts import Ledger, Part, save_sources
from experiments.datasets.ntu.protocols import check_sizes
from experiments.datasets.ntu.reader import Reader
from experiments.datasets.ntu.sources import Source, find_sources
from experiments.datasets.ntu.text import SkeletonError
from experiments.datasets.recordings import Recordings, Rejected, Writer, open_recordings, writing
from irevrnn.jit.cache import say

#: Files of a part: what a kill can lose, for each process.
PART_SIZE = 128


def convert(
    name: str, raw: str | os.PathLike[str], out: str | os.PathLike[str], workers: int | None = None
) -> Recordings:
    """Convert NTU RGB+D 60 or 120 to the format of :mod:`experiments.datasets.recordings`.

    It is NTU RGB+D 60 if all files belong to that. Recordings on the authors' list of missing
    skeletons are left out.

    Args:
        name: ``"ntu"``.
        raw: folder that holds the .skeleton files, at any depth.
        out: folder to write.
        workers: processes that read; None for one for each core.

    Returns:
        What was converted; its ``rejected`` lists what was left out, and why. The columns are
        ``setup``, ``camera`` and ``repetition``.

    Raises:
        DataError: there is nothing to convert, the output cannot be written, or a process was
            killed. What is finished is kept for the next time.
    """
    raw, out = Path(raw), Path(out)
    sources, rejected = find_sources(raw)
    listed = [source for source in sources if parse_name(source.name) in missing()]
    sources = [source for source in sources if parse_name(source.name) not in missing()]
    if not sources:
        raise DataError(_nothing(raw, len(listed), rejected))
    samples = [parse_name(source.name) for source in sources]
    actions = 60 if all(map(is_in_60, samples)) else 120
    check_sizes(samples, actions)
    say(
        f"NTU RGB+D {actions}: {len(sources):,} files, and {len(listed):,} on the authors' list of "
        "missing skeletons, which are left out"
    )
    with _writable(out), _alone(out):
        ledger = Ledger(out)
        rejected += _read_all([s for s in sources if not ledger.knows(s)], ledger, workers)
        _assemble(out, actions, sources, ledger, rejected)
    return open_recordings(out)


def _nothing(raw: Path, listed: int, rejected: Sequence[Rejected]) -> str:
    message = f"{raw} holds no .skeleton file of NTU RGB+D to convert"
    if listed:
        message += f"; {listed} are on the authors' list of missing skeletons"
    return "\n".join([message, *map(str, rejected)])


# --- reading ------------------------------------------------------------------------------------


def _read_all(sources: list[Source], ledger: Ledger, workers: int | None) -> list[Rejected]:
    """Read files into parts; return what could not be read at all, and may be the next time."""
    from tqdm import tqdm

    chunks = [sources[i : i + PART_SIZE] for i in range(0, len(sources), PART_SIZE)]
    jobs = [(chunk, ledger.next_part()) for chunk in chunks]
    ledger.folder.mkdir(exist_ok=True)
    unreadable = []
    with tqdm(total=len(sources), unit="file", desc="reading", disable=None) as progress:
        try:
            for chunk, path, found in _parts(jobs, workers or os.cpu_count() or 1):
                ledger.add_part(path)
                unreadable += found
                progress.update(len(chunk))
        except BrokenProcessPool:
            raise DataError(
                "a process that read files was killed, perhaps for want of memory. What is "
                "finished is kept: run the same command again to go on, or with fewer workers"
            ) from None
    return unreadable


_Job = tuple[list[Source], Path]


def _parts(
    jobs: Sequence[_Job], workers: int
) -> Iterator[tuple[list[Source], Path, list[Rejected]]]:
    """Make the parts, in any order: what was read, where it is now, what could not be read."""
    workers = min(workers, len(jobs))
    if workers <= 1:
        reader = Reader()
        for chunk, path in jobs:
            yield chunk, path, make_part(chunk, path, reader)
        return
    Reader()  # builds the parser, before every process wants to
    # A fresh process has no threads of ours that a fork would leave behind in the middle of things.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_start_worker)
    try:
        futures: dict[Future[list[Rejected]], _Job] = {
            pool.submit(_make_part_in_worker, *job): job for job in jobs
        }
        for future in as_completed(futures):
            yield *futures.pop(future), future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def make_part(sources: Sequence[Source], path: Path, reader: Reader) -> list[Rejected]:
    """Read files, write what came of them to ``path``, and return what could not be read."""
    part, unreadable = Part(), []
    for source in sources:
        file = source.path.name
        try:
            frames = main_actors(reader.read(source.path))
        except SkeletonError as error:
            part.rejected.append((Rejected(file, error.reason, error.line), source.stamp))
        except OSError as error:  # it may be readable the next time, so no part remembers it
            unreadable.append(Rejected(file, f"the file cannot be read: {error.strerror}"))
        else:
            part.names.append(source.name)
            part.stamps.append(source.stamp)
            part.frames.append(frames)
    if part.names or part.rejected:
        with _writable(path):
            part.save(path)
    return unreadable


_reader: Reader


def _start_worker() -> None:
    global _reader
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this
    _reader = Reader()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A process whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _make_part_in_worker(sources: Sequence[Source], path: Path) -> list[Rejected]:
    return make_part(sources, path, _reader)


# --- writing ------------------------------------------------------------------------------------


def _assemble(
    out: Path, actions: int, sources: Sequence[Source], ledger: Ledger, rejected: list[Rejected]
) -> None:
    """Put the recordings behind one another, unless they are already."""
    from tqdm import tqdm

    kept = {s: frames for s in sources if (frames := ledger.frames_of(s))}
    spoiled = [(one, s.stamp) for s in sources if (one := ledger.rejection_of(s))]
    rejected = sorted([*rejected, *(one for one, _ in spoiled)], key=str)
    if not kept:
        raise DataError("\n".join(["no file is a recording:", *map(str, rejected)]))
    about = description(actions)
    names = [source.name for source in kept]
    if any(ledger.folder.glob("part-*")) or not _is_there(out, names, rejected, about.data_set):
        with writing(out, about, bodies=2) as writer:
            for one in rejected:
                writer.reject(one.file, one.reason, one.line)
            for source, frames in tqdm(kept.items(), unit="file", desc="writing", disable=None):
                _add(writer, frames(), parse_name(source.name))
    save_sources(out, {source.name: source.stamp for source in kept}, spoiled)
    shutil.rmtree(ledger.folder)


def _is_there(out: Path, names: list[str], rejected: list[Rejected], data_set: str) -> bool:
    try:
        before = open_recordings(out)
    except DataError:
        return False
    return (before.about.data_set, before.names.tolist(), list(before.rejected)) == (
        data_set, names, rejected,
    )  # fmt: skip


def _add(writer: Writer, frames: np.ndarray, sample: Sample) -> None:
    writer.add(
        frames,
        sample.action - 1,
        sample.subject,
        str(sample),
        setup=sample.setup,
        camera=sample.camera,
        repetition=sample.repetition,
    )


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    """Turn what goes wrong with writing below ``path`` into a message."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror or error}. What is finished is kept: when this "
            "is put right, run the same command again to go on"
        ) from error


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep other conversions out of the folder, and remove what a killed one left half written."""
    from filelock import FileLock, Timeout

    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", timeout=0):
            for half in [*out.glob(".*.tmp"), *out.glob(".parts/.*.tmp")]:
                half.unlink()
            yield
    except Timeout:
        raise DataError(f"another conversion writes {out}; wait for it, or name another") from None
