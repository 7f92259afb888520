"""The fast reader of ``.skeleton`` files.

``skeleton_parser.cpp`` reads files in the plain form of all published ones, some twenty times
faster than a loop over their lines. It is built on first use, as the kernels are. A file that it
declines goes to the reference reader, which reads it or says what is wrong; so does every file
where there is no compiler. The result is the same.
"""

import ctypes
import os
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from experiments.datasets.ntu.reference_reader import (
    BODY_FIELDS,
    JOINT_FIELDS,
    JOINTS,
    Skeletons,
    parse,
)
from experiments.datasets.recordings import SkeletonError
from irevrnn.kernels.jit.build import build_extension
from irevrnn.kernels.jit.compiler import BuildError

#: The least size of a body: one character for each field, and one after it.
_BYTES_OF_BODY = 2 * (1 + BODY_FIELDS) + len("25\n") + 2 * JOINTS * JOINT_FIELDS
#: Bytes around the text that the parser may read.
_BEFORE, _BEHIND = 64, 128
#: The largest published file has some 10 MB.
_LARGEST = 1 << 30


def read_skeleton(path: str | os.PathLike[str]) -> Skeletons:
    """Read a ``.skeleton`` file, or raise an OSError, or a SkeletonError that names the line."""
    buffer, size = _load(path)
    parsed = _parse_fast(buffer, size)
    return parse(buffer[_BEFORE : _BEFORE + size].tobytes()) if parsed is None else parsed


def _load(path: str | os.PathLike[str]) -> tuple[np.ndarray, int]:
    """Return the content of a file with space around it, and its size."""
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > _LARGEST:
            raise SkeletonError(f"the file has {size} bytes; expected at most {_LARGEST}")
        buffer = np.zeros(_BEFORE + size + _BEHIND, np.uint8)
        return buffer, file.readinto(buffer.data[_BEFORE : _BEFORE + size])


def _parse_fast(buffer: np.ndarray, size: int) -> Skeletons | None:
    """Parse what :func:`_load` returned; None if there is no parser, or it declines the text."""
    parser = _parser()
    if parser is None:
        return None
    if not size or buffer[_BEFORE + size - 1] != ord("\n"):  # the end of the last line is missing
        buffer[_BEFORE + size] = ord("\n")
        size += 1
    capacity = size // _BYTES_OF_BODY + 1
    bodies: tuple[np.ndarray, ...] = (
        np.empty(capacity, np.int64),
        np.empty(capacity, np.uint64),
        np.empty((capacity, JOINTS, 3), np.float32),
    )
    pointers = [array.ctypes.data for array in bodies]
    count = parser(buffer.ctypes.data + _BEFORE, size, capacity, *pointers)
    return Skeletons(*(array[:count] for array in bodies)) if count > 0 else None


@cache
def _parser() -> Any:
    """Return the compiled parser, or None, after one warning, where it cannot be built."""
    try:
        source = Path(__file__).with_name("skeleton_parser.cpp")
        library = ctypes.CDLL(str(build_extension(source.stem, [source])))
    except (BuildError, OSError) as error:
        problem = "its C++ parser could not be built"
        message = f"irevrnn reads NTU RGB+D line by line, slowly, because {problem}: {error}"
        warnings.warn(message, RuntimeWarning, stacklevel=3)
        return None
    function = library.irevrnn_parse_skeleton
    size, pointer = ctypes.c_int64, ctypes.c_void_p
    function.restype, function.argtypes = size, [pointer, size, size, *[pointer] * 3]
    return function
