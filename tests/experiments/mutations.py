"""Changes of files, for tests that spoil them, and what a data set's reader makes of these."""

import tempfile
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st

from experiments.datasets import DataError


def mutations(*pieces):
    """Up to three changes, by random bytes or one of ``pieces``, or of a whole line."""
    kinds = st.sampled_from(["cut", "drop", "insert", "replace", "lose line", "double line"])
    piece = st.binary(min_size=1, max_size=4)
    if pieces:
        piece |= st.sampled_from(pieces)
    return st.lists(st.tuples(kinds, st.floats(0, 1), piece), min_size=1, max_size=3)


@contextmanager
def written(files):
    """A folder, for a while, with the folder ``raw`` of these files in it."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        raw.mkdir()
        for name, content in files.items():
            (raw / name).write_bytes(content)
        yield raw


def mutated(data, changes):
    for kind, place, piece in changes:
        if kind in ("lose line", "double line"):
            lines = data.splitlines(keepends=True)
            at = round(place * len(lines))
            lines[at : at + 1] *= 2 if kind == "double line" else 0
            data = b"".join(lines)
            continue
        at = round(place * len(data))
        after = {"cut": len(data), "drop": at + len(piece), "insert": at}.get(kind, at + len(piece))
        data = data[:at] + (b"" if kind in ("cut", "drop") else piece) + data[after:]
    return data


def edit(file, old, new):
    data = file.read_bytes()
    assert old in data
    file.write_bytes(data.replace(old, new, 1))


def reasons(recordings):
    return sorted(str(one) for one in recordings.rejected)


def converted(convert, files):
    """Convert the files: to frames by name and rejections, or None and the error."""
    with written(files) as raw:
        try:
            recordings = convert(raw, raw.parent / "out")
        except DataError as error:
            return None, str(error)
        frames = {str(n): recordings[i].copy() for i, n in enumerate(recordings.names)}
        return frames, reasons(recordings)
