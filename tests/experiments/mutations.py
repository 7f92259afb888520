"""Changes of bytes, for tests that spoil files at random places."""

import tempfile
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st


def mutations(*pieces):
    """Up to three changes, by random bytes or one of ``pieces``."""
    kinds = st.sampled_from(["cut", "drop", "insert", "replace"])
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
        at = round(place * len(data))
        after = {"cut": len(data), "drop": at + len(piece), "insert": at}.get(kind, at + len(piece))
        data = data[:at] + (b"" if kind in ("cut", "drop") else piece) + data[after:]
    return data
