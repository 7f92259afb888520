"""Time the reader of NTU RGB+D: ``python -m experiments.datasets.ntu.benchmark``.

On made-up files of realistic size (100 frames of 2 bodies, numbers of seven digits as the recorder
wrote them), the reader is timed against a loop over lines that calls ``float()`` on the same
fields. Then a folder of such files is converted, including the start of the processes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench.measure import environment, interleaved_times
from experiments.datasets.ntu.conversion import convert
from experiments.datasets.ntu.reader import read_skeleton
from experiments.datasets.ntu.reference_reader import BODY_FIELDS, JOINTS, Skeletons
from experiments.datasets.ntu.samples import SUFFIX, Sample, missing
from experiments.files import write_text
from experiments.process import threads

FRAMES, BODIES = 100, 2
#: Recordings of NTU RGB+D 60.
ALL = 56_880


def run(files: int, converted: int, repetitions: int, workers: int) -> dict[str, Any]:
    """Measure reading and converting; ``ratio`` is relative to the reader's time.

    ``files`` different files are read in each of the interleaved ``repetitions``, so that none is
    in the caches, and ``converted`` files are converted by ``workers`` processes.
    """
    texts = [make_text(seed) for seed in range(files)]
    with tempfile.TemporaryDirectory() as folder, threads(1):
        raw = Path(folder, "raw")
        raw.mkdir()
        paths = [raw / f"{sample}{SUFFIX}" for sample in some_samples(max(files, converted))]
        for path, text in zip(paths, itertools.cycle(texts), strict=False):
            path.write_bytes(text)
        methods = {"reader": read_skeleton, "lines": read_lines}
        times = interleaved_times(
            {name: partial(_read_all, read, paths[:files]) for name, read in methods.items()},
            repetitions,
        )
        started = time.perf_counter()
        count = len(convert("ntu", raw, Path(folder, "out"), workers))
        seconds = time.perf_counter() - started
    reading = {}
    for name, timing in times.items():
        low, ratio, high = timing.ratio_to(times["reader"])
        median = 1e3 * timing.quartiles[1] / files
        reading[name] = {"median_ms": median, "ratio": ratio, "ratio_quartiles": [low, high]}
    conversion = {
        "files": count, "workers": workers, "seconds": seconds, "files_per_second": count / seconds,
        "minutes_for_all": ALL * seconds / count / 60, "all": ALL,
    }  # fmt: skip
    return {
        "environment": environment(), "frames": FRAMES, "bodies": BODIES,
        "bytes": round(np.mean([len(text) for text in texts])), "repetitions": repetitions,
        "reading": reading, "conversion": conversion,
    }  # fmt: skip


def make_text(seed: int, frames: int = FRAMES, bodies: int = BODIES) -> bytes:
    """Return the content of a file in which people drift about, drawn with a seed."""
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
    """Return recordings of NTU RGB+D 60 that are not on the list of missing skeletons."""
    numbers = itertools.product(range(1, 18), (1, 2, 3), range(1, 41), (1, 2), range(1, 61))
    wanted = (sample for sample in itertools.starmap(Sample, numbers) if sample not in missing())
    return list(itertools.islice(wanted, count))


def read_lines(path: Path) -> Skeletons:
    """Read a file line by line."""
    frame_of, ids, fields, joints = [], [], [], []
    with open(path, encoding="ascii") as file:
        frames = int(file.readline())
        for frame in range(frames):
            for _ in range(int(file.readline())):
                body, *rest = file.readline().split()
                frame_of.append(frame)
                ids.append(int(body))
                fields.append([float(word) for word in rest])
                count = int(file.readline())
                joints.append([[*map(float, file.readline().split())] for _ in range(count)])
    return Skeletons(
        frames,
        np.array(frame_of, np.int64),
        np.array(ids, np.uint64),
        np.array(fields, np.float32).reshape(-1, len(BODY_FIELDS)),
        np.array(joints, np.float32),
    )


def _read_all(read: Callable[[Path], object], paths: Sequence[Path]) -> None:
    for path in paths:
        read(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write the report."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.datasets.ntu.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, default in (("files", 50), ("converted", 1000), ("repetitions", 9), ("workers", 2)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"(default: {default})")
    parser.add_argument("--output", type=Path, default=Path("build/ntu_reader.json"))
    options = vars(parser.parse_args(arguments))
    output = options.pop("output")
    if min(options.values()) < 1:
        parser.error(f"{', '.join(options)} must be at least 1")
    report = run(**options)
    for name, entry in report["reading"].items():
        print(f"{name:20}{entry['median_ms']:10.3f} ms per file{entry['ratio']:8.1f} x")
    print("converted {files} files in {seconds:.1f} s".format(**report["conversion"]))
    output.parent.mkdir(parents=True, exist_ok=True)
    write_text(output, json.dumps(report, indent=2, sort_keys=True) + "\n")
    print(f"written to {output}")


if __name__ == "__main__":
    main()
