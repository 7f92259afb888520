"""How fast NTU RGB+D is read: ``python -m experiments.datasets.ntu.benchmark``.

On made-up files of realistic size (100 frames of 2 bodies, numbers of seven digits as the recorder
wrote them), the reader is timed against a loop over lines that calls ``float()`` on the same
fields, against the same loop on x, y and z alone, and against the text parsers of NumPy and pandas
(which only give one long row of numbers, without frames and bodies). Then a folder of such files is
converted by the command that people use, start of the processes included.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import itertools
import json
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench.measure import environment, interleaved_times
from experiments.datasets.ntu.actors import main_actors
from experiments.datasets.ntu.conversion import convert
from experiments.datasets.ntu.names import SUFFIX, Sample, missing
from experiments.datasets.ntu.reader import Reader
from experiments.datasets.ntu.text import BODY_FIELDS, JOINT_FIELDS, JOINTS, Skeletons
from experiments.files import write_text
from experiments.process import threads

FRAMES, BODIES = 100, 2
#: Different files, so that none is in the processor's cache when its turn comes.
FILES = 50
CONVERTED = 1000
REPETITIONS = 9
#: Recordings of NTU RGB+D 60.
ALL = 56_880


def run(
    files: int = FILES,
    converted: int = CONVERTED,
    repetitions: int = REPETITIONS,
    workers: int = 2,
) -> dict[str, Any]:
    """Measure reading and converting.

    Args:
        files: different files to read in each repetition.
        converted: files to convert.
        repetitions: interleaved rounds.
        workers: processes that convert.

    Returns:
        The report, ready for JSON: milliseconds for each file, and how many times as long as the
        reader a method takes.
    """
    with tempfile.TemporaryDirectory() as folder, threads(1):
        raw = Path(folder, "raw")
        raw.mkdir()
        texts = [make_text(seed) for seed in range(files)]
        paths = [raw / f"{sample}{SUFFIX}" for sample in some_samples(max(files, converted))]
        for index, path in enumerate(paths):
            path.write_bytes(texts[index % files])
        return {
            "environment": environment(),
            "frames": FRAMES,
            "bodies": BODIES,
            "bytes": round(np.mean([len(text) for text in texts])),
            "repetitions": repetitions,
            "reading": _reading(paths[:files], repetitions),
            "conversion": _conversion(raw, Path(folder, "out"), len(paths), workers),
        }


def make_text(seed: int, frames: int = FRAMES, bodies: int = BODIES) -> bytes:
    """The content of a file in which people drift about, drawn with a seed."""
    random = np.random.default_rng(seed)
    pose = random.uniform([-0.4, -1, 3], [0.4, 1, 4], (bodies, JOINTS, 3))
    places = pose + np.cumsum(random.normal(0, 0.02, (frames, bodies, JOINTS, 3)), axis=0)
    pixels = random.uniform(0, [512, 424, 1920, 1080], (frames, bodies, JOINTS, 4))
    turns = random.uniform(-1, 1, (frames, bodies, JOINTS, 4))
    numbers = np.concatenate([places, pixels, turns], axis=-1)
    lines = [str(frames)]
    for frame in numbers:
        lines.append(str(bodies))
        for body, joints in enumerate(frame):
            lean = " ".join(f"{number:.7G}" for number in random.uniform(-1, 1, 2))
            lines += [f"{72057594037932358 + body} 0 1 1 1 1 0 {lean} 2", str(JOINTS)]
            lines += [" ".join([*(f"{number:.7G}" for number in joint), "2"]) for joint in joints]
    return "".join(f"{line}\r\n" for line in lines).encode()


def some_samples(count: int) -> list[Sample]:
    """So many recordings of NTU RGB+D 60 that are not on the list of missing skeletons."""
    numbers = itertools.product(range(1, 18), (1, 2, 3), range(1, 41), (1, 2), range(1, 61))
    wanted = (sample for sample in itertools.starmap(Sample, numbers) if sample not in missing())
    return list(itertools.islice(wanted, count))


# --- reading ------------------------------------------------------------------------------------


def read_lines(path: Path, fields: int = len(JOINT_FIELDS)) -> Skeletons:
    """Read a file line by line, the first ``fields`` of each joint."""
    frame_of, ids, rest, joints = [], [], [], []
    with open(path, encoding="ascii") as file:
        frames = int(file.readline())
        for frame in range(frames):
            for _ in range(int(file.readline())):
                body, *more = file.readline().split()
                frame_of.append(frame)
                ids.append(int(body))
                rest.append([float(word) for word in more])
                joints.append(
                    [
                        [float(word) for word in file.readline().split()[:fields]]
                        for _ in range(int(file.readline()))
                    ]
                )
    return Skeletons(
        frames,
        np.array(frame_of, np.int64),
        np.array(ids, np.uint64),
        np.array(rest, np.float32).reshape(-1, len(BODY_FIELDS)),
        np.array(joints, np.float32),
    )


def _read_numpy(path: Path) -> np.ndarray:
    return np.fromstring(path.read_bytes(), sep=" ")


def _read_pandas(path: Path) -> Any:
    pandas = importlib.import_module("pandas")  # not among the dependencies
    columns = range(len(JOINT_FIELDS))
    return pandas.read_csv(BytesIO(path.read_bytes()), sep=" ", header=None, names=columns)


def _reading(paths: Sequence[Path], repetitions: int) -> dict[str, Any]:
    reader = Reader()
    methods: dict[str, Callable[[Path], object]] = {
        "reader": reader.read,
        "lines": read_lines,
        "lines_xyz": partial(read_lines, fields=3),
        "numpy": _read_numpy,
        "reader_and_actors": lambda path: main_actors(reader.read(path)),
        "lines_and_actors": lambda path: main_actors(read_lines(path)),
    }
    if importlib.util.find_spec("pandas"):
        methods["pandas"] = _read_pandas
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's, of a parser that it does not like to keep
        times = interleaved_times(
            {name: partial(_for_each, method, paths) for name, method in methods.items()},
            repetitions,
        )
    report: dict[str, Any] = {}
    for name, timing in times.items():
        ours = times["reader_and_actors" if name.endswith("actors") else "reader"]
        low, ratio, high = timing.ratio_to(ours)
        report[name] = {
            "median_ms": 1e3 * timing.quartiles[1] / len(paths),
            "ratio": ratio,
            "ratio_quartiles": [low, high],
        }
    # The strictest comparison: all that a conversion does to a file, against reading alone.
    low, ratio, high = times["lines"].ratio_to(times["reader_and_actors"])
    report["lines_to_reader_and_actors"] = {"ratio": ratio, "ratio_quartiles": [low, high]}
    return report


def _for_each(method: Callable[[Path], object], paths: Sequence[Path]) -> None:
    for path in paths:
        method(path)


# --- converting ---------------------------------------------------------------------------------


def _conversion(raw: Path, out: Path, files: int, workers: int) -> dict[str, Any]:
    started = time.perf_counter()
    recordings = convert("ntu", raw, out, workers)
    seconds = time.perf_counter() - started
    if len(recordings) != files:
        raise RuntimeError(f"{len(recordings)} of {files} files were converted")
    return {
        "files": files,
        "workers": workers,
        "seconds": seconds,
        "files_per_second": files / seconds,
        "minutes_for_all": ALL * seconds / files / 60,
        "all": ALL,
    }


# --- command line -------------------------------------------------------------------------------


def table(report: dict[str, Any]) -> str:
    """Write a report as text."""
    lines = [
        f"{report['frames']} frames of {report['bodies']} bodies, {report['bytes'] / 1e3:.0f} kB; "
        f"median of {report['repetitions']} repetitions on {report['environment']['cpu']}",
        f"{'':28}{'ms a file':>10}{'x ours':>10}",
    ]
    for name, entry in report["reading"].items():
        ms = f"{entry['median_ms']:.3f}" if "median_ms" in entry else ""
        lines.append(f"{name:28}{ms:>10}{entry['ratio']:>10.1f}")
    done = report["conversion"]
    lines.append(
        f"converted {done['files']} files in {done['seconds']:.1f} s by {done['workers']} "
        f"processes: {done['files_per_second']:.0f} a second, {done['all']:,} in "
        f"{done['minutes_for_all']:.1f} minutes"
    )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table and write the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.datasets.ntu.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--files", type=int, default=FILES, help="files to read (default: 50)")
    parser.add_argument(
        "--converted", type=int, default=CONVERTED, help="files to convert (default: 1000)"
    )
    parser.add_argument("--repetitions", type=int, default=REPETITIONS, help="default: 9")
    parser.add_argument("--workers", type=int, default=2, help="that convert (default: 2)")
    parser.add_argument(
        "--output", type=Path, default=Path("build/ntu_reader.json"),
        help="where the JSON goes (default: %(default)s)",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    if min(options.files, options.converted, options.repetitions, options.workers) < 1:
        parser.error("files, converted, repetitions and workers must be at least 1")
    report = run(options.files, options.converted, options.repetitions, options.workers)
    print(table(report))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_text(options.output, json.dumps(report, indent=2, sort_keys=True) + "\n")
    print(f"\nwritten to {options.output}")


if __name__ == "__main__":
    main()
