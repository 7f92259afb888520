"""The fast reader of ``.skeleton`` files.

``skeleton_parser.cpp`` reads files that are written plainly, as all published ones are, some twenty
times faster than a loop over their lines. It is built on first use, as the kernels are. A file that
it declines goes to :func:`experiments.datasets.ntu.text.parse`, which reads it or says what is wrong;
so does every file where there is no compiler. Either way the result is the same.

Why C++: the text parsers of NumPy and pandas are only two and four times as fast as that loop, and
leave the sorting out of frames and bodies to do (:mod:`experiments.datasets.ntu.benchmark` times them).
"""

from __future__ import annotations

import ctypes
import os
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from experiments.datasets.ntu.text import (
    BODY_FIELDS,
    JOINT_FIELDS,
    JOINTS,
    SkeletonError,
    Skeletons,
)
from experiments.datasets.ntu.text import parse as parse_slowly
from irevrnn.jit.build import build_extension
from irevrnn.jit.compiler import BuildError

#: The least a body can take: one character for each field, and one behind it.
_BYTES_OF_BODY = 2 * (1 + len(BODY_FIELDS)) + len("25\n") + 2 * JOINTS * len(JOINT_FIELDS)
#: What the parser may read before the text and behind it.
_BEFORE, _BEHIND = 64, 128
#: The largest published file has some 10 MB. What is this large is no recording.
_LARGEST = 1 << 30


def read_skeleton(path: str | os.PathLike[str]) -> Skeletons:
    """Read a file.

    Args:
        path: a ``.skeleton`` file.

    Returns:
        All that is in it.

    Raises:
        SkeletonError: the file is damaged; the message names the line.
        OSError: the file cannot be read.
    """
    return Reader().read(path)


class Reader:
    """Reads files one after another into the same memory, for one thread."""

    def __init__(self) -> None:
        self._parse = _parser()
        self._text = np.empty(0, np.uint8)
        self._bodies = _Bodies(0)

    def read(self, path: str | os.PathLike[str]) -> Skeletons:
        """Read a file, as :func:`read_skeleton`; the next call overwrites the arrays."""
        size = self._load(path)
        if self._parse is not None:
            # The end of the last line may be missing.
            last = size - 1 if size and self._text[_BEFORE + size - 1] == ord("\n") else size
            self._text[_BEFORE + last] = ord("\n")
            count = self._call(last + 1)
            if count > 0:
                return self._bodies.first(count)
        return parse_slowly(self._text[_BEFORE : _BEFORE + size].tobytes())

    def _load(self, path: str | os.PathLike[str]) -> int:
        """Put the content of a file where the parser takes it; return its length."""
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size > _LARGEST:
                raise SkeletonError(f"the file has {size} bytes; expected at most {_LARGEST}")
            if _BEFORE + size + _BEHIND > len(self._text):
                self._text = np.zeros(_BEFORE + size + size // 2 + _BEHIND, np.uint8)
                self._bodies = _Bodies(len(self._text) // _BYTES_OF_BODY + 1)
            view = self._text.data[_BEFORE : _BEFORE + size]
            length = 0
            while length < size and (got := file.readinto(view[length:])):
                length += got
        return length

    def _call(self, size: int) -> int:
        return self._parse(self._text.ctypes.data + _BEFORE, size, *self._bodies.out)


class _Bodies:
    """Memory for the bodies of a file."""

    def __init__(self, capacity: int) -> None:
        self.frames = np.zeros(1, np.int64)
        self.frame = np.empty(capacity, np.int64)
        self.body = np.empty(capacity, np.uint64)
        self.fields = np.empty((capacity, len(BODY_FIELDS)), np.float32)
        self.joints = np.empty((capacity, JOINTS, len(JOINT_FIELDS)), np.float32)
        arrays = (self.frames, self.frame, self.body, self.fields, self.joints)
        self.out = (capacity, *(array.ctypes.data for array in arrays))

    def first(self, count: int) -> Skeletons:
        return Skeletons(
            int(self.frames[0]),
            self.frame[:count],
            self.body[:count],
            self.fields[:count],
            self.joints[:count],
        )


@cache
def _parser() -> Any:
    """The compiled parser; None, after one warning, where it cannot be had."""
    try:
        source = Path(__file__).with_name("skeleton_parser.cpp")
        library = ctypes.CDLL(str(build_extension(source.stem, [source])))
    except (BuildError, OSError) as error:
        warnings.warn(
            f"irevrnn reads NTU RGB+D line by line, slowly, for want of its C++ parser: {error}",
            RuntimeWarning,
            stacklevel=3,
        )
        return None
    function = library.irevrnn_parse_skeleton
    function.restype = ctypes.c_int64
    pointer = ctypes.c_void_p
    function.argtypes = [pointer, ctypes.c_int64, ctypes.c_int64, *[pointer] * 5]
    return function
