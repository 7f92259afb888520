"""Fetching published archives: verified, resumed where it broke off, and never half done."""

import http.server
import io
import threading
import zipfile

import numpy as np
import pytest

from experiments.datasets import fsdd
from experiments.datasets.__main__ import main
from experiments.datasets.archives import listing_sha256
from experiments.datasets.recordings import open_recordings

from .fake_signals import write_fsdd


@pytest.fixture
def published(tmp_path, monkeypatch):
    """The bytes of an archive of a small data set, which counts as the published one."""
    raw = tmp_path / "raw"
    write_fsdd(raw, ("theo",), 2, 2)
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("free-1.0/README.md", "digits")
        for file in raw.iterdir():
            archive.write(file, f"free-1.0/recordings/{file.name}")
    files = [(file.name, file.read_bytes()) for file in raw.iterdir()]
    monkeypatch.setattr(fsdd, "SHA256", listing_sha256(files))
    return data.getvalue()


class Server(http.server.ThreadingHTTPServer):
    """Serves ``content`` at any path, from the byte asked for, but at most ``limit`` bytes."""

    def __init__(self, content):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.limit, self.ranges = content, None, []


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        wanted = self.headers["Range"]
        self.server.ranges.append(wanted)
        begin = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        rest = self.server.content[begin:]
        if not rest:
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[: self.server.limit])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(published, monkeypatch):
    with Server(published) as one:
        threading.Thread(target=one.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://127.0.0.1:{one.server_port}/fsdd.zip"
        monkeypatch.setattr(fsdd, "ADDRESSES", (address,))
        yield one
        one.shutdown()


def fetch(tmp_path):
    return main(["fsdd", "--root", str(tmp_path / "data")])


def left(tmp_path):
    return sorted(file.name for file in (tmp_path / "data" / "fsdd").iterdir())


WHOLE = [".lock", "frames.npy", "index.npz", "meta.json"]


def test_what_is_fetched_is_converted_and_kept(tmp_path, server, capsys):
    assert fetch(tmp_path) == 0 and left(tmp_path) == WHOLE
    assert len(open_recordings(tmp_path / "data" / "fsdd")) == 4
    assert fetch(tmp_path) == 0 and len(server.ranges) == 1
    assert capsys.readouterr().out.count("4 recordings") == 2


def test_a_download_that_broke_off_goes_on(tmp_path, server, capsys):
    server.limit = 1000
    assert fetch(tmp_path) == 1
    assert f"got 1,000 of {len(server.content):,} bytes" in capsys.readouterr().err
    server.limit = None
    assert fetch(tmp_path) == 0 and left(tmp_path) == WHOLE
    assert server.ranges == [None, "bytes=1000-"]


def test_a_rest_that_does_not_fit_is_fetched_anew(tmp_path, server):
    whole = server.content
    server.content, server.limit = b"x" * 2 * len(whole), len(whole) + 5
    assert fetch(tmp_path) == 1
    server.content, server.limit = whole, None
    assert fetch(tmp_path) == 1  # the server has no bytes from there on
    assert fetch(tmp_path) == 0


def test_the_next_address_is_tried(tmp_path, published, monkeypatch):
    (tmp_path / "there.zip").write_bytes(published)
    addresses = tuple(f"file://{tmp_path}/{name}.zip" for name in ("none", "there"))
    monkeypatch.setattr(fsdd, "ADDRESSES", addresses)
    assert fetch(tmp_path) == 0


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda data: data[:-100], "the archive is damaged"),
        (lambda data: b"<html>no such page</html>", "the archive is damaged"),
        (lambda data: data[:300] + bytes(20) + data[320:], "the archive is damaged"),
    ],
)
def test_a_damaged_archive_is_refused_and_fetched_again(tmp_path, server, capsys, spoil, problem):
    whole = server.content
    server.content = spoil(whole)
    assert fetch(tmp_path) == 1 and left(tmp_path) == [".lock"]
    error = capsys.readouterr().err
    assert problem in error and "python -m experiments.datasets fsdd --raw FOLDER" in error
    server.content = whole
    assert fetch(tmp_path) == 0


def test_other_files_than_those_published_are_refused(tmp_path, server, capsys, monkeypatch):
    monkeypatch.setattr(fsdd, "SHA256", "0")
    assert fetch(tmp_path) == 1 and left(tmp_path) == [".lock"]
    assert "the files are not those published" in capsys.readouterr().err


def test_a_listing_does_not_depend_on_the_order():
    files = [("b", b"2"), ("a", b"1")]
    assert listing_sha256(files) == listing_sha256(files[::-1])
    assert listing_sha256(files) != listing_sha256([("a", b"2"), ("b", b"1")])


def test_files_from_a_folder_replace_those_there(tmp_path, server, capsys):
    assert fetch(tmp_path) == 0
    write_fsdd(tmp_path / "other", ("lucas",), 1, 3, seed=1)
    command = ["fsdd", "--root", str(tmp_path / "data"), "--raw", str(tmp_path / "other")]
    assert main(command) == 0
    recordings = open_recordings(tmp_path / "data" / "fsdd")
    assert len(recordings) == 3 and np.unique(recordings.subjects).tolist() == [2]
